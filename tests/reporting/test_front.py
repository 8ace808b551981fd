"""A front on the screen, on its page, and several in one chart."""

from segslim.reporting.front import page_context, terminal_view
from segslim.reporting.jobs import read_jobs
from segslim.reporting.page import context, render
from segslim.reporting.sweep_page import charted_networks
from segslim.reporting.sweep_page import context as sweep_context
from segslim.screen import Screen
from tests.reporting.sample import sample_report, write_run


def point(name, loss, ratio, precision="float32", beaten=False):
    figures = {
        "miou": (0.81 - loss, 0.0),
        "miou_loss": (loss, 0.004),
        "latency_ms": (10 * ratio, 0.1),
        "latency_ratio": (ratio, 0.01),
        "size_mb": (5.7 * ratio, 0.0),
        "flops": (1.7e8 * ratio, 0.0),
        "flops_ratio": (ratio, 0.0),
    }
    return {
        **{"name": name, "ratio": 1 - ratio, "align": 1, "precision": precision, "beaten": beaten},
        "figures": {key: {"value": v, "low": v - d, "high": v + d} for key, (v, d) in figures.items()},
        **{"class_iou": [0.9, 0.7, None], "overrides": ["compress=prune_post", f"compress.ratio={1 - ratio:g}"]},
        **{"deployment": "store/artifacts/export-1", "page": f"points/{name.replace(' ', '-')}/report.html"},
    }


def sample(model="fast_scnn", missed=()):
    points = [
        point("dense", 0.0, 1.0),
        point("0.3 by 16 int8 retrained", 0.001, 0.75, "int8"),
        point("0.5", 0.004, 0.5),
        point("0.8", 0.5, 0.3, beaten=True),
    ]
    bound = {"name": "miou_loss", "most": 0.01, "soft": False, "pessimistic": True, "room": 0.002}
    front = {
        **{"goal": "latency", "chosen": "0.5", "missed": list(missed), "points": points},
        "bounds": [{**bound, "figure": points[2]["figures"]["miou_loss"]}],
        "failed": [{"name": "0.7", "error": "no <kernel>"}],
    }
    return sample_report(strategy="prune_post", model=model, front=front)


def test_the_screen_names_the_choice_its_room_and_what_failed_in_80_columns(capsys):
    Screen(width=80).print(terminal_view(sample()))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for said in ("> 0.5", "0.0080", "compress.miou_loss=0.01 holds", "0.7 failed: no <kernel>", "int8 retrained"):
        assert said in printed
    assert "#" in printed.split("point")[0], "the chosen point is in the plot"


def test_the_page_has_every_point_with_its_command_and_its_masks():
    page = render("report.html", context(sample(missed=["miou_loss"])))
    shown = page_context(sample())
    for row in shown["rows"]:
        assert row["page"].replace(" ", "-") in page and row["command"] in page and row["file"] in page
    assert "no &lt;kernel&gt;" in page and "no point holds every bound" in page


def test_a_sweep_over_networks_draws_the_fronts_of_all(tmp_path):
    for number, model in enumerate(("fast_scnn", "unet")):
        write_run(tmp_path / str(number), sample(model), overrides=[f"model={model}"])
    jobs = read_jobs(tmp_path)
    titles = [network.title for network in charted_networks(jobs)]
    assert "fast_scnn 0.3 by 16 int8 retrained" in titles and "unet 0.8" in titles
    page = render("sweep.html", sweep_context(tmp_path, jobs))
    assert "front of fast_scnn" in page and "front of unet" in page
    assert 'href="0/points/0.3-by-16-int8-retrained/report.html#predictions"' in page
    answer = page[page.index("best network at a latency") : page.index("<h2>Jobs")]
    assert "fast_scnn 0.3 by 16 int8 retrained" in answer and "fast_scnn 0.8" in answer  # 0.8 is the fastest
