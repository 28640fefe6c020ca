"""q(z | x) compared with draws by NUTS."""
