# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint evaluate`: methods x masks x images x seeds, measured against the truth.

    python -m inpaint evaluate --data faces64.npz --split report --limit 24 --starts 8 --steps 150 \\
        --methods latent_search,ridge,biharmonic,mean_face --against ridge --output out/report

Rows go to `rows*.jsonl` as soon as they are finished; the same command goes on where it stopped. Several processes may
share a folder with `--shard 0/4`, `--shard 1/4` and so on. `table.md` and `sheets/` are made from all rows at the end.

`--study NAME` asks a question that is known by name: flags that are not given are filled in, `--method` says what is
studied, and a report is written at the end. Without `--data`, `--samples N` draws images from the generator itself.

    python -m inpaint evaluate --study robustness --image photos/ --generator checkpoints/ffhq --output out/robustness

A method is one of those of `restore`, or a config file of it (`FILE.py` or `FILE.py:VARIANT`). `LABEL=METHOD` names
it in the tables; `METHOD+search.mahalanobis=0.1+search.space=w` changes settings.

`--lpips` and `--identity_metric` add figures of converted networks. One that the objective asks (`--perceptual`,
`--identity`) is no judge of its results.
"""

import dataclasses
import hashlib
import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np
from absl import flags

import stylegan_jax as sg
from inpaint import masks, named_methods, operators
from inpaint.commands import hosts, networks, study_flags, study_runs
from inpaint.experiments import sheet, table
from inpaint.experiments.estimate import seconds_per_image
from inpaint.experiments.grid import (
    Degradation,
    Grid,
    NamedConfig,
    Portraits,
    Task,
    draw_portraits,
    load_portraits,
    settings_of,
)
from inpaint.experiments.measure import MEASURED_BY, check_measured
from inpaint.experiments.parse import parse_method
from inpaint.experiments.records import Identity, Records, fingerprint
from inpaint.experiments.run import Runner
from inpaint.metrics.judge import LoadedJudge
from inpaint.metrics.perceptual import check_size
from stylegan_jax import checkpoint, image_io
from stylegan_jax.features import ArcFace, Lpips
from stylegan_jax.training import data

_DATA = flags.DEFINE_string("data", None, "Images: a folder, or an npz with uint8 images [n, h, w, c].")
flags.DEFINE_alias("image", "data")
_SAMPLES = flags.DEFINE_integer(
    "samples", None, "Instead of --data, so many images drawn from the generator, which it can show.", lower_bound=1
)
_SPLIT = flags.DEFINE_string("split", None, "Take only the images of an npz whose 'split' is this, e.g. report.")
_LIMIT = flags.DEFINE_integer("limit", None, "Take so many images, evenly spaced over the split.", lower_bound=1)
_FIT_DATA = flags.DEFINE_string("fit_data", None, "Images for methods that are fitted; by default --data, if an npz.")
_FIT_SPLIT = flags.DEFINE_string(
    "fit_split", None, "Split of the former; by default train, if it is an npz with splits."
)
_METHODS = flags.DEFINE_list(
    "methods",
    None,
    f"Methods: {', '.join(named_methods.METHODS)}, or config files; by default what restore would take.",
)
_MASKS = flags.DEFINE_list("masks", ["centre"], f"Masks: {', '.join(masks.KNOWN)}; see the README.")
_DEGRADATIONS = flags.DEFINE_list(
    "degradations",
    [],
    f"Other degradations, several at once joined by +: {', '.join(operators.KNOWN)}; see docs/degradations.md. With "
    "them and no --masks there are no masks.",
)
_MASK_SEED = flags.DEFINE_integer(
    "mask_seed", 0, "Of masks and degradations; every method and seed meets the same ones."
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Of the searches.")
_STARTS = flags.DEFINE_integer("starts", None, "Latents optimised for every image, in all methods.")
_STEPS = flags.DEFINE_integer("steps", None, "Optimisation steps, in all methods.")
_ENCODER = flags.DEFINE_string(
    "encoder", None, "Checkpoint of an encoder trained for the generator; by default the one in its folder, if any."
)
_GENERATOR = flags.DEFINE_string("generator", None, checkpoint.GENERATOR_HELP)
_BFLOAT16 = flags.DEFINE_integer(
    "bfloat16_from",
    None,
    "Blocks of at least this resolution compute in bfloat16; latents, losses and optimiser stay float32.",
    lower_bound=1,
)
_JUDGE = flags.DEFINE_string("judge", None, "Checkpoint directory of a judge; by default the one of the package.")
_LPIPS = flags.DEFINE_string("lpips", None, "Checkpoint of LPIPS, for the figures lpips and lpips_hole.")
_IDENTITY_METRIC = flags.DEFINE_string("identity_metric", None, "Checkpoint of ArcFace, for the figure identity.")
_BATCH = flags.DEFINE_integer("batch", None, "Images restored together; by default what fits.", lower_bound=1)
_SHARD = flags.DEFINE_string(
    "shard", None, "I/N: take every N-th image, beginning with I; --distributed says it by itself."
)
_AGAINST = flags.DEFINE_string("against", None, "Method that the tables compare the others with.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be run, and how long it may take.")
_TABLE_ONLY = flags.DEFINE_bool("table_only", False, "Make table and sheets from the rows that are there.")
_PICTURES = flags.DEFINE_bool("save_images", True, "Write every composite as PNG, and sheets of them.")
_OUTPUT = flags.DEFINE_string("output", "out/evaluate", "Folder for rows, table and pictures.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")
_QUIET = flags.DEFINE_bool("quiet", False, "Print the result only.")


def _shard(text: str | None, share: hosts.Share) -> tuple[int, int]:
    if text is None:
        return share
    if share.count > 1:
        raise ValueError("--shard and --distributed exclude each other: both say which images are whose")
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise ValueError(f"--shard must be I/N with 0 <= I < N, got {text!r}")
    return int(first), int(count)


def _seeds(texts: list[str]) -> tuple[int, ...]:
    if not texts or not all(text.isdigit() for text in texts):
        raise ValueError(f"--seeds must be non-negative integers, got {','.join(texts)!r}")
    _unique("seeds", [str(int(text)) for text in texts])
    return tuple(int(text) for text in texts)


def _unique(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} named twice: {', '.join(twice)}")


def _training_images(grid: Grid, size: int, channels: int) -> np.ndarray | None:
    """Returns the images that methods of the grid are fitted on, or None where no method needs any."""
    if not any(named_methods.METHODS[m.config.method].needs_images for m in grid.methods):
        return None
    path, own = _FIT_DATA.value or _DATA.value, _FIT_DATA.value is None
    if path is None:
        raise ValueError("name the images that methods are fitted on by --fit_data; --samples are for scores only")
    if own and pathlib.Path(path).is_dir():
        raise ValueError("name the images that methods are fitted on by --fit_data; --data is for scores only")
    split = _FIT_SPLIT.value or ("train" if own or data.has_splits(path) else None)
    if own and _SPLIT.value in (None, split):
        raise ValueError("methods would be fitted on the images they are scored on; name another --split or --fit_data")
    return image_io.from_uint8(data.with_channels(data.load_images(path, resolution=size, split=split), channels))


def _settings(
    method: NamedConfig,
    model: sg.Model,
    judge: LoadedJudge,
    training_images: np.ndarray | None,
    hashes: dict[str, str],
    metric_hashes: dict[str, str],
) -> dict[str, Any]:
    """Returns all that decides a method's rows but the images, masks and seeds, which rows hold themselves."""
    named = named_methods.METHODS[method.config.method]
    fitted = training_images is not None and named.needs_images
    later = named.needs_images or named.needs_network
    needs = frozenset({method.config.method}) if later else named_methods.build_method(method.config).needs
    shared = {
        "generator": model.content_hash,
        "generator_config": dataclasses.asdict(model.generator.config),
        "encoder": model.encoder_hash if {"guess", "encoder"} & needs else None,
        "networks": {role: text for role, text in sorted(hashes.items()) if role in needs},
        "judge": judge.content_hash,
        "fitted_on": hashlib.sha256(training_images.tobytes()).hexdigest() if fitted else None,
        "data": {"name": _data_name(), "split": _SPLIT.value},
        "mask_seed": _MASK_SEED.value,
    }
    # Left out where there are none, so that rows from before there were any count as finished.
    shared |= {MEASURED_BY: metric_hashes} if metric_hashes else {}
    return settings_of(method, json.loads(json.dumps(shared)))


def _tasks(model: sg.Model) -> tuple[Task, ...]:
    """Returns masks and degradations."""
    without = _DEGRADATIONS.value and flags.FLAGS["masks"].using_default_value
    found = () if without else tuple(masks.parse(text) for text in _MASKS.value)
    for text in _DEGRADATIONS.value:
        # Wrong ones are told before anything is run.
        channels = model.generator.config.image_channels
        operators.parse(text, size=model.resolution, key=jax.random.key(0), channels=channels)
    return found + tuple(Degradation(text) for text in _DEGRADATIONS.value)


def _check_tasks(methods: tuple[NamedConfig, ...], model: sg.Model) -> None:
    """Raises ValueError where a method cannot do what --degradations asks for."""
    for text in _DEGRADATIONS.value:
        channels = model.generator.config.image_channels
        operator = operators.parse(text, size=model.resolution, key=jax.random.key(0), channels=channels)
        for method in methods if operator.known is None else ():
            named = named_methods.METHODS[method.config.method]
            needs = named_methods.build_method(method.config).needs if named.searches else frozenset({"a mask"})
            masked = named.searches and named_methods.build_method(method.config).masked
            if {"a mask", "guess"} & needs or masked:
                raise ValueError(
                    f"the method {method.label} fills holes, and {text} leaves none; take one that searches without an "
                    "encoder, such as latent_search"
                )


def _grid(model: sg.Model) -> Grid:
    default = [named_methods.default_method(has_encoder=model.encoder is not None)]
    methods = tuple(
        parse_method(text, starts=_STARTS.value, steps=_STEPS.value)
        for text in (default if _METHODS.value is None else _METHODS.value)
    )
    for method in methods:
        if named_methods.METHODS[method.config.method].searches:
            networks.constrain(method.config)
    generators = _tasks(model)
    _unique("methods", [method.label for method in methods])
    _unique("masks", [generator.name for generator in generators])
    if not methods or not generators:
        raise ValueError("--methods and --masks must name one each at least")
    _check_tasks(methods, model)
    return Grid(methods, generators, _portraits(model), _seeds(_SEEDS.value), _MASK_SEED.value)


def _data_name() -> str:
    return pathlib.Path(_DATA.value).name if _DATA.value else "samples of the generator"


def _portraits(model: sg.Model) -> Portraits:
    if _SAMPLES.value is not None:
        return draw_portraits(jax.random.key(_MASK_SEED.value), model.generator, _SAMPLES.value)
    found = load_portraits(_DATA.value, resolution=model.resolution, split=_SPLIT.value, limit=_LIMIT.value)
    return found._replace(images=data.with_channels(found.images, model.generator.config.image_channels))


def _networks(grid: Grid) -> networks.Networks:
    """Returns what the objectives of a grid ask beside the generator."""
    searches = [m.config for m in grid.methods if named_methods.METHODS[m.config.method].searches]
    built = [named_methods.build_method(config) for config in searches]
    return networks.load(
        frozenset().union(*(method.needs for method in built)),
        [name for method in built for name in method.attributes],
    )


def _metric_networks(resolution: int, asked: dict[str, str]) -> networks.Networks:
    """Returns the networks that measure beside the judge; `asked` are the hashes of those that objectives ask."""
    found, hashes = {}, {}
    for name, flag, kind in (("lpips", _LPIPS, Lpips), ("identity", _IDENTITY_METRIC, ArcFace)):
        if flag.value is None:
            continue
        found[name], hashes[name] = checkpoint.load_network(flag.value, kind)
        if hashes[name] in asked.values():
            print(
                f"note: --{flag.name} is what the objective asks too, so it is no judge of the results", file=sys.stderr
            )
    if "lpips" in found:
        check_size(found["lpips"], (resolution, resolution))
    return networks.Networks(found, hashes)


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    if not _DATA.value and _SAMPLES.value is None:
        raise ValueError("--data is needed: a folder of images, or an npz")
    if _DATA.value and _SAMPLES.value is not None:
        raise ValueError("--data and --samples exclude each other: both say what is restored")
    study_flags.fill_in()
    with hosts.joined() as share:
        return _evaluate(_shard(_SHARD.value, share))


def _evaluate(shard: tuple[int, int]) -> int:
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    folder = pathlib.Path(_OUTPUT.value)
    model, judge = sg.load(_GENERATOR.value, bfloat16_from=_BFLOAT16.value), LoadedJudge(_JUDGE.value)
    if _ENCODER.value is not None:
        model = checkpoint.with_encoder(model, _ENCODER.value)
    grid = _grid(model)
    # What a study of its own compares with is no method but what it does to one.
    checked = None if study_flags.has_own_run() else _AGAINST.value
    if checked is not None and checked not in [method.label for method in grid.methods]:
        raise ValueError(f"--against {_AGAINST.value!r} is none of the methods")
    name = "rows.jsonl" if shard[1] == 1 else f"rows-{shard[0]}-of-{shard[1]}.jsonl"
    records = Records(folder, name=name)
    training_images = _training_images(grid, model.resolution, model.generator.config.image_channels)
    asked = _networks(grid)
    measuring = _metric_networks(model.resolution, asked.hashes)
    check_measured(records, {(m.label, mask.name) for m in grid.methods for mask in grid.masks}, measuring.hashes)
    trained = {m.label: networks.load_inpainter(m.config, model) for m in grid.methods}
    settings = {
        m.label: _settings(m, model, judge, training_images, asked.hashes | trained[m.label][1], measuring.hashes)
        for m in grid.methods
    }
    prints = {label: fingerprint(found) for label, found in settings.items()}
    asked_of = study_runs.Asked(model, judge, grid, asked.found, records, settings, folder if _PICTURES.value else None)
    if study_flags.has_own_run():
        if shard[1] > 1:
            raise ValueError("--shard and --distributed deal out the images of a grid, and this study is none")
        study_flags.run(asked_of, dry=_DRY_RUN.value, only_report=_TABLE_ONLY.value)
        return 0
    if not _TABLE_ONLY.value:
        runner = Runner(
            model,
            judge,
            grid,
            networks=asked.found,
            metric_networks=measuring.found,
            inpainters={label: found for label, (found, _) in trained.items()},
            training_images=training_images,
            batch=_BATCH.value,
        )
        units = list(grid.units(records, prints, batch=runner.batch, shard=shard))
        if _DRY_RUN.value:
            _print_plan(grid, units, runner, records, shard)
            return 0
        records.start()
        study_flags.note(folder, grid)
        _run(units, runner, records, settings, folder)
    if shard[0] >= len(grid.portraits.names):
        print("no image falls to this process; the others write the table")
        return 0
    # Other processes may have finished rows meanwhile.
    _write_reports(folder, grid, Records(folder, name=name), prints)
    study_flags.write_page(folder)
    return 0


def _run(units, runner: Runner, records: Records, settings: dict[str, dict], folder: pathlib.Path) -> None:
    took: dict[str, list[float]] = {}
    for number, unit in enumerate(units, 1):
        rows = runner.run(unit, pictures=folder if _PICTURES.value else None)
        records.append(rows, settings[unit.method.label])
        if not _QUIET.value:
            psnrs = [row["metrics"]["hole_psnr"] for row in rows if row["metrics"]["hole_psnr"] is not None]
            psnr = f"{np.median(psnrs):.2f}" if psnrs else "-"
            seconds = rows[0]["seconds"] * len(rows)
            took.setdefault(unit.method.label, []).append(seconds)
            # The median leaves out what was compiled; methods still unseen are left out altogether.
            left = sum(np.median(took[rest.method.label]) for rest in units[number:] if rest.method.label in took)
            print(
                f"[{number}/{len(units)}] {unit.method.label}, {unit.mask.name}, seed {unit.seed}: {len(rows)} images, "
                f"hole PSNR {psnr} dB, {seconds:.1f} s; about {left:.0f} s left",
                flush=True,
            )


def _print_plan(grid: Grid, units, runner: Runner, records: Records, shard: tuple[int, int]) -> None:
    total, known = 0.0, True
    for method in grid.methods:
        for mask in grid.masks:
            cell = [unit for unit in units if unit.method is method and unit.mask is mask]
            left, forwards, gradients = sum(len(unit.index) for unit in cell), *runner.evaluations(method)
            all_of_it = len(range(shard[0], len(grid.portraits.names), shard[1])) * len(grid.seeds)
            seconds = seconds_per_image(runner, method, records.rows.values())
            known, total = known and seconds is not None, total + (seconds or 0) * left
            print(
                f"{method.label}, {mask.name}: {left} of {all_of_it} restorations left, {forwards} renders and "
                f"{gradients} gradients each"
            )
    print(f"about {total:.0f} s" if known else f"about {total:.0f} s, and the methods that no row tells about")


def _write_reports(folder: pathlib.Path, grid: Grid, records: Records, prints: dict[str, str]) -> None:
    rows = [
        records.rows[Identity(method.label, mask.name, grid.portraits.names[i], seed)]
        for method, mask, seed, i, done in grid.wanted(records, prints)
        if done
    ]
    if not rows:
        raise ValueError(f"{folder} holds no rows of this grid yet")
    against = _AGAINST.value if any(row["method"] == _AGAINST.value for row in rows) else None
    title = f"Evaluation on {_data_name()}" + (f", {_SPLIT.value}" if _SPLIT.value else "")
    text = table.report(rows, against=against, title=title)
    image_io.write_text(folder / "table.md", text)
    if _PICTURES.value:
        sheet.write_sheets(folder, grid, records)
    whole = len(grid.methods) * len(grid.masks) * len(grid.portraits.names) * len(grid.seeds)
    print(text if not _QUIET.value else "", end="")
    print(f"{len(rows)} of {whole} rows; {folder}/table.md")
