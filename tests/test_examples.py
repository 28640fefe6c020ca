"""The examples on parts, as a user runs them, at a small size; and what all examples say of bad arguments."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from conftest import EXAMPLES

from pyro_vae import evidence


def test_swap_parts(run_example, tmp_path, capsys):
    sizes = ["--epochs", 1, "--images", 100, "--test-images", 2, "--max-temperatures", 16]
    smaller = {"IMAGE, LATENT, HIDDEN = (1, 28, 28), 40, [300, 300]": "IMAGE, LATENT, HIDDEN = (1, 28, 28), 4, [32]"}
    run_example("swap_parts.py", *sizes, "--device", "cpu", "--out", tmp_path, smaller=smaller)
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    out = capsys.readouterr().out
    assert len(rows) == 10
    for name, row in rows.items():
        assert name in out
        assert row["elbo"] < row["log_px"] < -50
        assert 0 <= row["settled"] <= 1
        assert row["log_px_error"] is None or row["log_px_error"] > 0


def test_a_part_of_ones_own_is_short_and_works(run_example, capsys):
    source = (EXAMPLES / "my_own_part.py").read_text()
    part = source[source.index("class Spiral") : source.index("def main")].rstrip()
    assert len(part.splitlines()) < 15
    sizes = {"images[:8000]": "images[:4000]", "images[8000:8200]": "images[8000:8010]"}
    run_example("my_own_part.py", smaller=sizes)
    out = capsys.readouterr().out
    log_px = [float(line.split("per image: ")[1].split(" ")[0]) for line in out.splitlines()]
    assert len(log_px) == 2
    assert all(-190 < value < -100 for value in log_px)  # a VAE that ignores z has -206


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("swap_parts", "--only nothing", "--only nothing: there are standard normal prior"),
        ("swap_parts", "--epochs 0", "argument --epochs: '0' is not an integer of at least 1"),
        ("swap_parts", "--binarized nowhere", "nowhere"),
        ("bound_touches_evidence", "--points 1", "argument --points: '1' is not an integer of at least 2"),
        ("gradient_variance", "--draws 2", "argument --draws: '2' is not an integer of at least 3"),
        ("gradient_variance", "--particles 0", "argument --particles: '0' is not an integer of at least 1"),
        ("kl_divergence", "--num-samples 10", "argument --num-samples: '10' is not an integer of at least 100"),
        ("kl_divergence", "--steps many", "argument --steps: 'many' is not an integer of at least 10"),
        ("autoencoder_pca_vae", "--epochs 0", "argument --epochs: '0' is not an integer of at least 1"),
        ("autoencoder_pca_vae", "--draws 5", "argument --draws: '5' is not an integer of at least 6"),
        ("autoencoder_pca_vae", "--lr nan", "argument --lr: 'nan' is not a positive number"),
        ("autoencoder_pca_vae", "--device cuda:99", "device 'cuda:99' does not exist here"),
        ("latent_space_2d", "--steps 2", "argument --steps: '2' is not an integer of at least 3"),
        ("latent_space_2d", "--pairs 1", "argument --pairs: '1' is not an integer of at least 2"),
        ("frey_faces", "nowhere", "nowhere contains neither frey_faces.npz nor frey_rawface.mat; download it from"),
        ("frey_faces", "nowhere --latent-dims 0", "argument --latent-dims: '0' is not an integer of at least 1"),
        ("frey_faces", "", "the following arguments are required: FOLDER"),
        ("iwae_table", "--layers 3", "argument --layers: invalid choice: "),  # Python 3.14 quotes the 3
        ("iwae_table", "--test-images 1", "argument --test-images: '1' is not an integer of at least 2"),
        ("iwae_table", "--data nowhere", "--data is for --binarization fixed"),
        ("iwae_table", "--binarization fixed", "binarized_mnist needs root="),
        ("iwae_table", "--binarization fixed --data nowhere", "nowhere contains neither"),
        ("tune", "--trials 0", "argument --trials: '0' is not an integer of at least 1"),
        ("tune", "--test-images 1", "argument --test-images: '1' is not an integer of at least 2"),
        ("bound_touches_evidence", "--out FILE", "cannot write to the folder"),
        ("gradient_variance", "--out FILE", "cannot write to the folder"),
        ("kl_divergence", "--out FILE", "cannot write to the folder"),
        ("autoencoder_pca_vae", "--out FILE", "cannot write to the folder"),
        ("latent_space_2d", "--out FILE", "cannot write to the folder"),
        ("iwae_table", "--out FILE", "cannot write to the folder"),
    ],
)
def test_bad_arguments_end_it_at_once_with_one_line(
    run_example, tmp_path, monkeypatch, capsys, name, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    with pytest.raises(SystemExit) as stopped:
        run_example(f"{name}.py", *arguments.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir() if path.name != "results"] == ["FILE"]


def test_tune_prunes_and_ranks_by_the_estimate(run_example, tmp_path, capsys, monkeypatch):
    optuna = pytest.importorskip("optuna", reason="pip install 'pyro-vae[optuna]'")
    storage = f"sqlite:///{tmp_path}/tune.db"
    sizes = ["--images", 300, "--epochs", 3, "--test-images", 2, "--best", 2, "--storage", storage]
    run_example("tune.py", *sizes, "--trials", 3)
    capsys.readouterr()
    # Estimates that turn the order of the ELBOs round: the ranking follows them.
    estimate, found = evidence.estimate, []

    def reversed_estimate(*args, **options):
        found.append(estimate(*args, **options))
        found[-1] = replace(found[-1], log_prob=found[0].log_prob + 10 * (len(found) - 1))
        return found[-1]

    monkeypatch.setattr(evidence, "estimate", reversed_estimate)
    run_example("tune.py", *sizes, "--trials", 8)
    out = capsys.readouterr().out
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    assert len(trials) == 8  # three of them from before
    assert len({str(trial.params) for trial in trials}) == 8
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert pruned
    assert all(len(trial.intermediate_values) < 3 for trial in pruned)
    assert out.count("pruned") == sum(trial.number >= 3 for trial in pruned)
    best = sorted((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)[:2]
    ranking = [int(line.split()[1].strip(":")) for line in out.partition("bias included:")[2].splitlines()[1:3]]
    assert ranking == [best[1].number, best[0].number]
    assert f"trial {ranking[0]} (first) and trial {ranking[1]} (second):\nfirst - second = +10" in out
