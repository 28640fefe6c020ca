"""Models of which log p(x) is known, by a formula or by quadrature: easy ones, and ones that mislead.

Each function makes n datapoints from the model itself, and returns model, guide, data and log p(x).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pyro
import torch
import zuko
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.distributions import HypersphericalUniform, ProjectedNormal, as_pyro

LOG_2PI = math.log(2 * math.pi)


class Known(NamedTuple):
    model: Callable[[Tensor], None]
    guide: Callable[[Tensor], None]
    x: Tensor
    log_prob: Tensor


def f64(*values: float) -> Tensor:
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.float64)


def wide_grid(widest: float = 1e5, steps: int = 40_001, narrow: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Points and log-weights of the trapezoidal rule in t, for z = narrow sinh(t): fine at zero, and far out."""
    t = torch.linspace(-1, 1, steps, dtype=torch.float64) * math.asinh(widest / narrow)
    return narrow * t.sinh(), (narrow * t.cosh() * (t[1] - t[0])).log()


def even_grid(low: float, high: float, steps: int = 20_001) -> tuple[Tensor, Tensor]:
    """The same for points that are evenly spaced."""
    z = torch.linspace(low, high, steps, dtype=torch.float64)
    weight = torch.full_like(z, ((high - low) / (steps - 1)))
    weight[0] /= 2
    weight[-1] /= 2
    return z, weight.log()


def normal(x: Tensor, loc, scale) -> Tensor:
    return dist.Normal(torch.as_tensor(loc, dtype=x.dtype), torch.as_tensor(scale, dtype=x.dtype)).log_prob(x)


def scalar(prior, likelihood, guide, x: Tensor, grid: tuple[Tensor, Tensor] | None) -> Known:
    """One latent: prior() and likelihood(z), of x by dimensions of event shape []."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    def guided(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x))

    z, log_weight = grid if grid is not None else wide_grid()
    log_prior = prior().log_prob(z) + log_weight
    exact = torch.stack([(log_prior + likelihood(z).log_prob(value)).logsumexp(0) for value in x])
    return Known(model, guided, x, exact)


def draw(prior, likelihood, n: int) -> Tensor:
    return likelihood(prior().sample((n,))).sample()


def linear_gaussian(n: int, dims: int = 4, shift: float = 2.0, widen: float = 0.5) -> Known:
    """With a guide that is moved and too narrow."""
    weight = torch.randn(dims + 2, dims, dtype=torch.float64) / dims**0.5
    scale = 0.5
    covariance = weight @ weight.T + scale**2 * torch.eye(dims + 2)
    exact = dist.MultivariateNormal(torch.zeros(dims + 2, dtype=torch.float64), covariance)
    precision = torch.eye(dims) + weight.T @ weight / scale**2
    posterior = torch.linalg.inv(precision)
    tril = torch.linalg.cholesky(posterior)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(dims), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.to(x).T, scale).to_event(1), obs=x)

    def guide(x):
        loc = x @ (weight / scale**2 @ posterior).to(x)
        with pyro.plate("data", len(x)):
            moved = loc + shift * tril.diagonal().to(x)
            pyro.sample("z", dist.MultivariateNormal(moved, scale_tril=widen * tril.to(x)))

    x = exact.sample((n,))
    return Known(model, guide, x, exact.log_prob(x))


def mixture_prior(n: int, modes: int = 3, dims: int = 2, seen: str = "one", narrow: float = 0.3) -> Known:
    """Of which only the first dimension is observed: in the others, the posterior has the modes of the prior."""
    loc = 3 * torch.randn(modes, dims, dtype=torch.float64)
    log_share = torch.randn(modes, dtype=torch.float64).log_softmax(0)
    scale, noise = narrow, 2.0
    centers = loc[:, 0]

    def model(x):
        with pyro.plate("data", len(x)):
            component = dist.Normal(loc.to(x), scale).to_event(1)
            z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=log_share.to(x)), component))
            pyro.sample("x", dist.Normal(z[..., 0], noise), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            if seen == "one":
                q = dist.Normal(loc[log_share.argmax()].to(x).expand(len(x), dims), scale)
            else:
                q = dist.Normal(loc.mean(0).to(x).expand(len(x), dims), scale if seen == "between" else 4.0)
            pyro.sample("z", q.to_event(1))

    chosen = log_share.exp().multinomial(n, replacement=True)
    spread = math.hypot(scale, noise)
    x = centers[chosen] + spread * torch.randn(n, dtype=torch.float64)
    exact = (log_share + normal(x[:, None], centers, spread)).logsumexp(1)
    return Known(model, guide, x, exact)


def two_widths(n: int, dims: int, wide: float, apart: float) -> Known:
    """A prior with a narrow mode of most mass beside a wide one, far lower, of which the data say little.

    They say much about five other latents, so that the posterior is far from the prior.
    """
    loc, scale, share = f64(-apart, apart), f64(wide, 0.2), f64(0.3, 0.7)
    noise, fine = 10.0, 0.01

    def prior(x: Tensor) -> dist.TorchDistribution:
        each = (part.to(x)[:, None].expand(2, dims) for part in (loc, scale))
        return dist.MixtureSameFamily(dist.Categorical(share.to(x)), dist.Normal(*each).to_event(1))

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(5), 1.0).to_event(1))
            z = pyro.sample("z", prior(x))
            mean, width = torch.cat([a, z.expand(*a.shape[:-1], dims)], -1), x.new_full((5 + dims,), noise)
            width[:5] = fine
            pyro.sample("x", dist.Normal(mean, width).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(x[:, :5], 2 * fine).to_event(1))
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), dims), 1.0).to_event(1))

    like = torch.zeros(1, dtype=torch.float64)
    a, z = torch.randn(n, 5, dtype=torch.float64), prior(like).sample((n,))
    x = torch.cat([a + fine * torch.randn_like(a), z + noise * torch.randn_like(z)], -1)
    exact = normal(x[:, :5], 0.0, math.hypot(1.0, fine)).sum(-1)
    modes = [normal(x[:, 5:], loc[i], (scale[i] ** 2 + noise**2).sqrt()).sum(-1) + share[i].log() for i in range(2)]
    return Known(model, guide, x, exact + torch.stack(modes).logsumexp(0))


def both_signs(n: int, seen: str = "one", noise: float = 0.3) -> Known:
    """z^2 is observed: a mode on either side of zero."""

    def prior():
        return dist.Normal(f64(0.0), 1.0)

    def likelihood(z):
        return dist.Normal(z**2, noise)

    def guide(x):
        root = x.clamp_min(0.01).sqrt()
        if seen == "one":
            return dist.Normal(root, 0.1)
        return dist.Normal(torch.zeros_like(x), 0.1)

    return scalar(prior, likelihood, guide, draw(prior, likelihood, n), even_grid(-9, 9, 40_001))


def gamma_poisson(n: int) -> Known:
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(x.new_tensor(1.5), 0.5))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(x + 1.0, 1.0))

    exact = dist.GammaPoisson(f64(1.5), f64(0.5))
    x = exact.sample((n,))
    return Known(model, guide, x, exact.log_prob(x))


def beta_binomial(n: int) -> Known:
    def model(x):
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Beta(x.new_tensor(0.7), 1.5))
            pyro.sample("x", dist.Binomial(12, p), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Beta(2 + x, 3.0))

    exact = dist.BetaBinomial(f64(0.7), f64(1.5), 12)
    x = exact.sample((n,))
    return Known(model, guide, x, exact.log_prob(x))


def dirichlet_multinomial(n: int, sizes: int = 5) -> Known:
    concentration = torch.linspace(0.5, 2.0, sizes, dtype=torch.float64)

    def model(x):
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Dirichlet(concentration.to(x)))
            pyro.sample("x", dist.Multinomial(20, p, validate_args=False), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Dirichlet(1 + x))

    exact = dist.DirichletMultinomial(concentration, 20)
    x = exact.sample((n,))
    return Known(model, guide, x, exact.log_prob(x))


def log_normal(n: int) -> Known:
    """A variance that is log-normal."""

    def model(x):
        with pyro.plate("data", len(x)):
            scale = pyro.sample("scale", dist.LogNormal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(x.new_zeros(3), scale[..., None]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("scale", dist.LogNormal(x.abs().mean(1).log(), 0.5))

    u, log_weight = even_grid(-9, 9)
    x = torch.randn(n, 3, dtype=torch.float64) * torch.randn(n, 1, dtype=torch.float64).exp()
    terms = normal(u, 0, 1) + log_weight + normal(x[..., None], 0, u.exp()).sum(1)
    return Known(model, guide, x, terms.logsumexp(1))


def two_sites(n: int) -> Known:
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(a[..., 0], 1.0))
            pyro.sample("x", dist.Normal(b, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(x, 0.2))
            pyro.sample("a", dist.Normal((b / 2)[..., None].expand(*b.shape, 2), 0.5).to_event(1))

    x = 1.5 * torch.randn(n, dtype=torch.float64)
    return Known(model, guide, x, normal(x, 0, 1.5))


def funnel(n: int, wide: float = 1.0, dims: int = 5, noise: float = 0.5) -> Known:
    """The scale of some latents is another one (Neal 2003)."""

    def model(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(x.new_tensor(0.0), wide))
            scale = (v / 2).exp()[..., None].expand(*v.shape, dims)
            z = pyro.sample("z", dist.Normal(0.0, scale).to_event(1))
            pyro.sample("x", dist.Normal(z, noise).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("v", dist.Normal(x.new_zeros(len(x)), wide))
            pyro.sample("z", dist.Normal(x / 2, 0.5).to_event(1))

    v, log_weight = even_grid(-9 * wide, 9 * wide)
    drawn = wide * torch.randn(n, 1, dtype=torch.float64)
    x = (drawn.exp() + noise**2).sqrt() * torch.randn(n, dims, dtype=torch.float64)
    terms = normal(v, 0, wide) + log_weight + normal(x[..., None], 0, (v.exp() + noise**2).sqrt()).sum(1)
    return Known(model, guide, x, terms.logsumexp(1))


def two_layers(n: int, width: float, noise: float, dims: int) -> Known:
    """z2 in the plane, z1 | z2 normal with a network for mean and width, x = z1 + noise; the guide ignores z2."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 32, 1.0), (32, dims, 2 / math.sqrt(32)), (32, dims, 1 / math.sqrt(32)))
    first, mean, spread = (torch.randn(a, b, generator=generator).double() * scale for a, b, scale in shapes)

    def layer(z2: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(z2 @ first)
        return hidden @ mean, width * (hidden @ spread).exp()

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(*layer(z2)).to_event(1))
            pyro.sample("x", dist.Normal(z1, noise).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z2", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("z1", dist.Normal(x, noise).to_event(1))

    loc, scale = layer(torch.randn(n, 2).double())
    x = loc + (scale**2 + noise**2).sqrt() * torch.randn(n, dims).double()
    line, log_weight = even_grid(-6, 6, 401)
    z2 = torch.cartesian_prod(line, line)
    loc, scale = layer(z2)
    log_prior = normal(z2, 0, 1).sum(1) + 2 * log_weight[1]
    variance = scale**2 + noise**2
    constant = log_prior - (loc.square() / variance + variance.log() + LOG_2PI).sum(1) / 2
    exponent = x @ (loc / variance).mT - x.square() @ (0.5 / variance).mT  # of normals, for all rows at once
    return Known(model, guide, x, (constant + exponent).logsumexp(1))


def uniform_below_a_latent(n: int) -> Known:
    """z is uniform between 0 and a log-normal latent, x = z + noise."""
    noise = 0.5

    def model(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.LogNormal(torch.zeros_like(x), 1.0))
            z = pyro.sample("z", dist.Uniform(0 * top, top))
            pyro.sample("x", dist.Normal(z, noise), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.LogNormal(torch.zeros_like(x), 1.0))
            pyro.sample("z", dist.Uniform(0 * top, top))

    top = torch.randn(n).double().exp()
    x = top * torch.rand(n).double() + noise * torch.randn(n).double()
    t, log_weight = even_grid(-9, 9)  # log(top)
    ends = dist.Normal(f64(0.0), noise)
    inside = ends.cdf(x[:, None]) - ends.cdf(x[:, None] - t.exp())
    return Known(model, guide, x, (normal(t, 0, 1) + log_weight - t + inside.log()).logsumexp(1))


def flow_prior(n: int) -> Known:
    """A masked autoregressive flow of two dimensions, bent."""
    with torch.no_grad():
        flow = zuko.flows.MAF(2, transforms=2, hidden_features=(16,)).double()
        for parameter in flow.parameters():
            parameter.mul_(2.0)
    flow.requires_grad_(False)
    weight = f64(1.0, 0.6)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", as_pyro(flow()))
            pyro.sample("x", dist.Normal((z * weight.to(z)).sum(-1), 0.3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.stack([x, x], -1) / 2, 0.6).to_event(1))

    line, log_weight = even_grid(-14, 14, 701)  # as 1001 to 4e-5
    z = torch.cartesian_prod(line, line)
    log_prior = flow().log_prob(z) + 2 * log_weight[1]
    x = flow().sample((n,)) @ weight + 0.3 * torch.randn(n, dtype=torch.float64)
    exact = torch.stack([(log_prior + normal(value, z @ weight, 0.3)).logsumexp(0) for value in x])
    return Known(model, guide, x, exact)


def student_prior(n: int, degrees: float = 3.0, noise: float = 1.0) -> Known:
    def prior():
        return dist.StudentT(f64(degrees))

    def likelihood(z):
        return dist.Normal(z, noise)

    return scalar(
        prior, likelihood, lambda x: dist.Normal(x / 2, 0.7), draw(prior, likelihood, n), wide_grid(steps=200_001)
    )


def cauchy_likelihood(n: int, wide: float = 5.0) -> Known:
    """Three observations that contradict each other: up to three modes."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), wide))
            pyro.sample("x", dist.Cauchy(z[..., None], x.new_ones(3)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.median(1).values, 0.5))

    z, log_weight = even_grid(-12 * wide, 12 * wide, 40_001)
    x = wide * torch.randn(n, 1, dtype=torch.float64) + dist.Cauchy(f64(0.0), 1.0).sample((n, 3))
    log_prior = normal(z, 0, wide) + log_weight
    exact = torch.stack([(log_prior + dist.Cauchy(z, 1.0).log_prob(row[:, None]).sum(0)).logsumexp(0) for row in x])
    return Known(model, guide, x, exact)


def cauchy_posterior(n: int) -> Known:
    """Prior and likelihood are Cauchy: so heavy are the tails of the posterior that it has no variance."""

    def prior():
        return dist.Cauchy(f64(0.0), 1.0)

    def likelihood(z):
        return dist.Cauchy(z, 1.0)

    return scalar(
        prior, likelihood, lambda x: dist.Normal(x / 2, 1.0), draw(prior, likelihood, n), wide_grid(1e8, 200_001)
    )


def vague_cauchy(n: int) -> Known:
    """A Cauchy prior, and data that say hardly anything of the latent: the posterior is Cauchy too."""

    def prior():
        return dist.Cauchy(f64(0.0), 1.0)

    def likelihood(z):
        return dist.Normal(z.tanh(), 2.0)

    return scalar(
        prior, likelihood, lambda x: dist.Normal(x * 0, 1.0), draw(prior, likelihood, n), wide_grid(1e10, 200_001)
    )


def laplace_prior(n: int) -> Known:
    def prior():
        return dist.Laplace(f64(0.0), 1.0)

    def likelihood(z):
        return dist.Normal(z, 1.0)

    return scalar(
        prior, likelihood, lambda x: dist.Normal(x / 2, 0.5), draw(prior, likelihood, n), even_grid(-60, 60, 120_001)
    )


def uniform_prior(n: int) -> Known:
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(x.new_tensor(-1.0), 2.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(x.new_tensor(-1.0), 2.0).expand([len(x)]))

    x = -1 + 3 * torch.rand(n, dtype=torch.float64) + 0.5 * torch.randn(n, dtype=torch.float64)
    cdf = dist.Normal(x, 0.5).cdf
    return Known(model, guide, x, ((cdf(f64(2.0)) - cdf(f64(-1.0))) / 3).log())


def discrete(n: int, width: float = 0.5) -> Known:
    """Which of five means: by enumeration."""
    loc, log_share = torch.arange(5.0, dtype=torch.float64), f64(-1.0, 0.0, 0.5, 0.0, 1.0).log_softmax(0)

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=log_share.to(x)))
            pyro.sample("x", dist.Normal(loc.to(x)[k], width), obs=x)

    def guide(x):
        logits = normal(x[:, None], loc.to(x), 1.5 * width)
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits))

    x = loc[log_share.exp().multinomial(n, replacement=True)] + width * torch.randn(n, dtype=torch.float64)
    return Known(model, guide, x, (log_share + normal(x[:, None], loc, width)).logsumexp(1))


def sphere(n: int, noise: float = 0.5) -> Known:
    """A direction in three dimensions, observed with noise: the integral over the sphere is sinh(k) / k."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", HypersphericalUniform(x.new_zeros(3)))
            pyro.sample("x", dist.Normal(z.to(x), noise).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            concentration = x / x.norm(dim=-1, keepdim=True) * 2
            pyro.sample("z", ProjectedNormal(concentration))

    z = torch.nn.functional.normalize(torch.randn(n, 3, dtype=torch.float64), dim=1)
    x = z + noise * torch.randn(n, 3, dtype=torch.float64)
    k = x.norm(dim=1) / noise**2
    log_ratio = k + torch.log(-torch.expm1(-2 * k)) - math.log(2) - k.log()
    exact = -(x.square().sum(1) + 1) / (2 * noise**2) - 1.5 * math.log(2 * math.pi * noise**2) + log_ratio
    return Known(model, guide, x, exact)


def ring(n: int, dims: int = 2, noise: float = 0.1) -> Known:
    """The length of a vector is observed: a posterior on a thin shell, of which every point is a mode."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(dims), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.square().sum(-1).add(1e-12).sqrt(), noise), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x / dims**0.5)[:, None].expand(len(x), dims), 0.3).to_event(1))

    r, log_weight = even_grid(1e-9, 15, 60_001)
    log_radial = dist.Chi2(f64(float(dims))).log_prob(r**2) + (2 * r).log() + log_weight
    x = torch.randn(n, dims, dtype=torch.float64).norm(dim=1) + noise * torch.randn(n, dtype=torch.float64)
    return Known(model, guide, x, (log_radial + normal(x[:, None], r, noise)).logsumexp(1))


def banana(n: int, noise: float = 0.1) -> Known:
    """z_2 - z_1^2 is observed: a posterior on a parabola."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 1] - z[..., 0] ** 2, noise), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.stack([x * 0, x], -1), 0.3).to_event(1))

    z, log_weight = even_grid(-10, 10)
    x = torch.randn(n, dtype=torch.float64) - torch.randn(n, dtype=torch.float64) ** 2
    terms = normal(z, 0, 1) + log_weight + normal(x[:, None] + z**2, 0, math.hypot(1, noise))
    return Known(model, guide, x, terms.logsumexp(1))


def spike_and_slab(n: int, dims: int = 5, spike: float = 0.05, share: float = 0.5, seen: str = "slab") -> Known:
    """A narrow normal inside of a wide one: the mode is in the one, and the mass may be in the other."""
    scales = f64(spike, 1.0)
    log_share = f64(share, 1 - share).log()

    def model(x):
        with pyro.plate("data", len(x)):
            component = dist.Normal(x.new_zeros(2, dims), scales.to(x)[:, None]).to_event(1)
            z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=log_share.to(x)), component))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7 if seen == "slab" else spike).to_event(1))

    chosen = log_share.exp().multinomial(n, replacement=True)
    spread = (scales**2 + 1).sqrt()
    x = spread[chosen][:, None] * torch.randn(n, dims, dtype=torch.float64)
    exact = (log_share + normal(x[:, None], 0, spread[:, None]).sum(-1)).logsumexp(1)
    return Known(model, guide, x, exact)


def many_signs(n: int, dims: int = 4, noise: float = 0.3) -> Known:
    """Squares of several latents are observed: 2^dims modes."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(dims), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z**2, noise).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.clamp_min(0.01).sqrt(), 0.2).to_event(1))

    z, log_weight = even_grid(-9, 9, 10_001)
    x = torch.randn(n, dims, dtype=torch.float64) ** 2 + noise * torch.randn(n, dims, dtype=torch.float64)
    log_prior = normal(z, 0, 1) + log_weight
    exact = torch.stack([(log_prior + normal(row[:, None], z**2, noise)).logsumexp(1).sum() for row in x])
    return Known(model, guide, x, exact)
