# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint restore`: restores the holes of one image, or of a folder of images, in several ways.

    python -m inpaint restore
    python -m inpaint restore --image photo.jpg --mask hole.png --generator checkpoints/ffhq --output out/photo
    python -m inpaint restore --method biharmonic --image photo.jpg --mask hole.png --output out/smooth
    python -m inpaint restore --image photos/ --mask masks/ --landmarks landmarks.json --output out/photos

Without arguments: a sample portrait, a central hole, the demo generator. Settings come from flags, then
`--config.search.NAME=VALUE`, then `--config FILE`, then the defaults.

A folder's images are restored one after the other, each into a folder of its own below `--output`, and
`summary.json` says what became of them. An image's result does not depend on the others. Images that are finished, by
the same settings and files, are skipped; a failing one does not stop the others.

Exit codes: 0 everything is done, or was before; 1 nothing could be done, because of what stderr says in one line; 2 a
flag or the config is wrong; 3 some images of a folder failed, each named in a line on stderr; 130 interrupted.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags

import inpaint
import stylegan_jax as sg
from inpaint import config as _config
from inpaint import film, framing, inputs, named_methods, output
from inpaint.commands import alignment, hosts, networks, report, search_flags
from inpaint.learned.difai import sheet
from inpaint.photograph import Photograph, Prepared, prepare, read_photograph
from inpaint.search import memory
from inpaint.search.method import FeedForward, Fill
from inpaint.search.scoring import score_starts
from stylegan_jax import checkpoint, image_io, rendering
from stylegan_jax.training import data

_IMAGE = flags.DEFINE_string("image", None, "Image file, or a folder of them; by default a sample portrait.")
_MASK = flags.DEFINE_string(
    "mask",
    None,
    "Mask file for all images, or a folder of masks with the images' stems (or STEM_mask, STEM-mask, STEM.mask); by "
    "default an image's transparent pixels are its hole.",
)
_POLARITY = flags.DEFINE_enum(
    "mask_polarity", "white_hole", image_io.MASK_POLARITIES, "Which colour of the mask is to be restored."
)
_THRESHOLD = flags.DEFINE_integer(
    "mask_threshold",
    None,
    "Mask levels of at least this are white, all others black; by default grey is a soft edge.",
    lower_bound=1,
    upper_bound=255,
)
_DILATE = flags.DEFINE_integer(
    "mask_dilate", 0, "Hole grows to all sides by this many pixels of the generator's image; negative: shrinks."
)
_BAND = flags.DEFINE_integer(
    "mask_band",
    0,
    "Pixels of the generator's image around the hole that the search does not look at; they stay the input's.",
    lower_bound=0,
)
_LANDMARKS = flags.DEFINE_string(
    "landmarks",
    None,
    "Cuts out the face as the generator expects it: X,Y,X,Y,X,Y of the eye at the left of the picture, the eye at the "
    "right and the mouth, in pixels of the upright image; or a JSON file {stem: [[x, y], [x, y], [x, y]]}; or a folder "
    "of STEM.json.",
)
_GENERATOR = flags.DEFINE_string("generator", None, checkpoint.GENERATOR_HELP)
_BFLOAT16 = flags.DEFINE_integer(
    "bfloat16_from",
    None,
    "Blocks of at least this resolution compute in bfloat16; latents, losses and optimiser stay float32.",
    lower_bound=1,
)
_ENCODER = flags.DEFINE_string(
    "encoder", None, "Checkpoint of an encoder trained for the generator; by default the one in its folder, if any."
)
_METHOD = flags.DEFINE_enum(
    "method",
    None,
    list(named_methods.METHODS),
    "; ".join(f"{name}: {method.summary}" for name, method in named_methods.METHODS.items()) + ".",
)
_FIT_DATA = flags.DEFINE_string(
    "fit_data", None, "Images that a method is fitted on, where it is: a folder, or an npz with images [n, h, w, c]."
)
_FIT_SPLIT = flags.DEFINE_string("fit_split", None, "Take only the images of that npz whose 'split' is this.")
_SPACE = flags.DEFINE_string("space", None, "Latent space that latent_search searches: z, z+, p+, w, w+, w++ or s.")
_INIT = flags.DEFINE_string("init", None, "Where starts begin: encoder, prescreen, edges, random, mean or file.")
_LATENTS = flags.DEFINE_string(
    "latents",
    None,
    "For --init file, which it implies: the latents.npz of an earlier restoration, whose best result the starts begin "
    "about; for a folder of images, the folder that an earlier call wrote.",
)
_LABEL = flags.DEFINE_integer("label", None, "Class for a conditional generator; by default every start draws one.")
_FILM = flags.DEFINE_bool("film", False, "Write an animation of how the results came about.")
_FILM_FORMAT = flags.DEFINE_enum("film_format", "webp", image_io.ANIMATIONS, "Of the animation.")
_OUTPUT = flags.DEFINE_string("output", "out/restore", "Folder for the results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace earlier restorations in the output folder.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")
_SAVE_EVERY = flags.DEFINE_float(
    "save_every",
    60.0,
    "Least seconds between two stored states of a running search, from which the same call goes on after an "
    "interruption; 0: none. A search that is filmed stores none.",
    lower_bound=0,
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Read all inputs and say what would be done, and with how much memory, but do nothing."
)
_JSON_LOG = flags.DEFINE_string(
    "json_log",
    None,
    "File that a line of JSON is appended to for every event: begin, progress, image (what became of it), end.",
)
_QUIET = flags.DEFINE_bool("quiet", False, "Print results, warnings and errors only.")


def _default_method() -> str:
    has_encoder = _ENCODER.value is not None or checkpoint.has_encoder(_GENERATOR.value)
    return named_methods.default_method(has_encoder=has_encoder)


def _resolved() -> _config.RestoreConfig:
    config = search_flags.resolve(_METHOD.value, default=_default_method, others=(_SPACE, _INIT))
    if _LATENTS.value is not None and _INIT.value is None:
        config.search.init = "file"
    method = named_methods.METHODS.get(config.method)
    if _LATENTS.value is not None and method is not None and not method.searches:
        raise ValueError(f"--latents says where a search begins, and the method {config.method} makes none")
    if (config.search.init == "file") != (_LATENTS.value is not None):
        raise ValueError(f"--init file and --latents belong together; init is {config.search.init}")
    return config


def _training_images(model: sg.Model) -> np.ndarray:
    images = data.load_images(_FIT_DATA.value, resolution=model.resolution, split=_FIT_SPLIT.value)
    return image_io.from_uint8(data.with_channels(images, model.generator.config.image_channels))


def _label(model: sg.Model) -> np.ndarray | None:
    c_dim = model.generator.config.c_dim
    if _LABEL.value is None:
        return None
    if not 0 <= _LABEL.value < c_dim:
        what = f"0 to {c_dim - 1}" if c_dim else "left out: the generator is not conditional"
        raise ValueError(f"--label must be {what}, got {_LABEL.value}")
    return np.eye(c_dim, dtype=np.float32)[_LABEL.value]


def _sources() -> tuple[list[inputs.Source | None], list[str]]:
    """Returns what to restore, None standing for the sample portrait, and notes."""
    if _IMAGE.value is not None:
        return inputs.find(_IMAGE.value, mask=_MASK.value, landmarks=_LANDMARKS.value)
    for flag in (_MASK, _LANDMARKS):
        if flag.value is not None:
            raise ValueError(f"--{flag.name} needs --image")
    return [None], []


def _many() -> bool:
    """Returns whether a folder of images is restored."""
    return _IMAGE.value is not None and pathlib.Path(_IMAGE.value).is_dir()


def _photograph(source: inputs.Source) -> Photograph:
    if source.trouble:
        raise ValueError(source.trouble)
    found = read_photograph(source.image, mask=source.mask, polarity=_POLARITY.value, threshold=_THRESHOLD.value)
    if source.landmarks is not None:
        try:
            framing.aligned(*found.known.shape, source.landmarks, 1)
        except ValueError as error:
            raise ValueError(f"{source.image}: {error}") from error
    return found


def _latents_file(source: inputs.Source | None) -> pathlib.Path | None:
    """Returns the file of the latents that an image's starts begin about, if any."""
    if _LATENTS.value is None:
        return None
    path = pathlib.Path(_LATENTS.value)
    path = path / source.name / "latents.npz" if _many() else path
    if not path.is_file():
        raise ValueError(f"--latents: {path} is no file; an earlier restoration leaves latents.npz in its folder")
    return path


def _say(text: str) -> None:
    if not _QUIET.value:
        print(text, flush=True)


@dataclasses.dataclass
class _Restorer:
    """All that is the same for every image of a call; equal shapes make every image run the same programs."""

    config: _config.RestoreConfig
    method: inpaint.Method | FeedForward | Fill
    model: sg.Model
    networks: networks.Networks
    label: np.ndarray | None
    fitted_on: str | None

    def prepared(
        self, source: inputs.Source | None, photograph: Photograph | None
    ) -> tuple[Prepared, np.ndarray | None]:
        """Returns the image at the generator's size, and the truth `[h, w, c]` where it is known."""
        size, channels = self.model.resolution, self.model.generator.config.image_channels
        if photograph is None:
            from inpaint import sample  # scikit-image is slow to import, and only the sample needs it

            photograph = Photograph(image_io.to_uint8(sample.portrait(size)), sample.centre_hole(size))
        landmarks = None if source is None else source.landmarks
        try:
            found = prepare(photograph, size, landmarks=landmarks, dilate=_DILATE.value, band=_BAND.value)
        except ValueError as error:
            raise ValueError(f"{source.image if source else 'sample portrait'}: {error}") from error
        if channels == 1:
            found = dataclasses.replace(found, image=found.image.mean(-1, keepdims=True))
        return found, found.image if source is None else None

    def settings(self, source: inputs.Source | None, prepared: Prepared) -> dict[str, Any]:
        """Returns what decides the result of an image, for `config.json`."""
        points = None if source is None or source.landmarks is None else source.landmarks.tolist()
        latents = _latents_file(source)
        return {
            "image": "sample portrait" if source is None else str(source.image),
            "mask": None if source is None or source.mask is None else str(source.mask),
            "checkpoint": _GENERATOR.value,
            "inputs": {
                "image_sha256": None if source is None else checkpoint.file_sha256(source.image),
                "mask_sha256": None if source is None or source.mask is None else checkpoint.file_sha256(source.mask),
                "landmarks": points,
                "image_id": 0 if source is None else source.image_id,
            },
            "options": {
                "mask_polarity": _POLARITY.value,
                "mask_threshold": _THRESHOLD.value,
                "mask_dilate": _DILATE.value,
                "mask_band": _BAND.value,
                "label": _LABEL.value,
                "film": _FILM_FORMAT.value if _FILM.value else None,
                "latents_sha256": None if latents is None else checkpoint.file_sha256(latents),
                "fitted_on": self.fitted_on,
                "encoder": self.model.encoder_hash if self._encoder_used(latents) else None,
                "networks": self.networks.hashes,
                "generator_config": dataclasses.asdict(self.model.generator.config),
            },
            "hole_share": round(prepared.hole_share, 6),
            "method": self.method.name,
            "config": dataclasses.asdict(self.config),
        }

    def _encoder_used(self, latents: pathlib.Path | None) -> bool:
        return "encoder" in self.method.needs or (latents is None and "guess" in self.method.needs)

    def composites(self, raw: np.ndarray, prepared: Prepared, means: np.ndarray | None = None) -> np.ndarray:
        """Returns renders `[n, h, w, c]` with the known pixels of the input; `means` are what its encoder expects."""
        return _config.composite(self.config, raw, prepared.image, prepared.known, means=means)

    def scores(self, result: inpaint.Result, guess: np.ndarray | None) -> np.ndarray:
        """Returns what ranks the starts, `[starts]`."""
        if not self.method.steps:
            return result.scores
        return score_starts(
            self.model, result, self.method, self.config.search.score, networks=self.networks.found, guess=guess
        )

    def plan(self, sources: list[inputs.Source | None], folder: pathlib.Path) -> report.Plan:
        """Returns what a call would do: inputs are read and earlier results looked for."""
        counts, troubles = {"to do": 0, "finished": 0}, []
        for source in sources:
            place = folder / source.name if _many() else folder
            try:
                photograph = None if source is None else _photograph(source)
                if alignment.ALIGN.value:
                    face = alignment.find(photograph, self.model.resolution, source.image)[0]
                    source = dataclasses.replace(source, landmarks=face)
                settings = self.settings(source, self.prepared(source, photograph)[0])
                done = not _OVERWRITE.value and output.finished(place, settings, self.model.content_hash)
                counts["finished" if done else "to do"] += 1
            except (ValueError, OSError) as error:
                troubles.append(" ".join(str(error).split()))
        search, devices = self.config.search, jax.local_device_count()
        if not self.method.steps:
            return report.Plan(counts, troubles)
        chunk = search.chunk or memory.default_chunk(self.model.generator)
        chunk = memory.dealt(min(chunk, search.starts), devices=devices)
        needed = memory.estimated_bytes(self.model.generator) * chunk // devices
        return report.Plan(counts, troubles, search.starts, self.method.steps, chunk, devices, needed)

    def state(self, folder: pathlib.Path, settings: dict[str, Any]) -> inpaint.SavedSearch:
        """Returns where the state of an image's search is kept: beside its folder, until that is written."""
        asked = output.request(settings, self.model.content_hash)
        identity = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        place = folder.with_name(f".{folder.name}.search")
        return inpaint.SavedSearch(place, every=_SAVE_EVERY.value, identity=identity, replace=_OVERWRITE.value)

    def restore(
        self,
        source: inputs.Source | None,
        photograph: Photograph | None,
        folder: pathlib.Path,
        *,
        show: bool,
        progress: Callable[[inpaint.Progress], None] | None,
    ) -> dict[str, Any]:
        """Restores one image into its folder, or skips it; returns its row of the summary; `show` prints notes, and
        `progress` is told how the search goes."""
        if alignment.ALIGN.value and source.landmarks is None:
            one = functools.partial(self.restore, show=show, progress=progress)
            size = self.model.resolution
            return alignment.restore_faces(source, photograph, folder, size=size, restore=one)
        search, name = self.config.search, "sample portrait" if source is None else str(source.image)
        output.check_folder(folder)
        prepared, truth = self.prepared(source, photograph)
        settings = self.settings(source, prepared)
        row = {"image": name, "folder": folder.name, "hole_share": settings["hole_share"]}
        if not _OVERWRITE.value and output.finished(folder, settings, self.model.content_hash):
            # A kill just after the results were written leaves it.
            self.state(folder, settings).remove()
            return row | {"status": "skipped"}
        meaning = report.hole_meaning(source and source.mask, _POLARITY.value) if source else "white is restored"
        if show:
            _say(f"image      {name}; hole {100 * prepared.hole_share:.1f} % of it ({meaning})")
        for note in prepared.notes:
            _say(f"note       {note}")
        warning = report.hole_warning(
            prepared.hole_share, _POLARITY.value, masked=source is None or source.mask is not None
        )
        if warning and show:
            print(f"warning    {name}: {warning}", flush=True)
        latents = _latents_file(source)
        recorder = film.Recorder() if _FILM.value and self.method.steps else None
        began, state = time.perf_counter(), self.state(folder, settings)
        stored = _SAVE_EVERY.value and not recorder
        guess = None if latents is None else rendering.read_latents(latents, self.model)[0][0]
        result = inpaint.solve(
            self.model,
            inpaint.Problem.observe(prepared.image, inpaint.operators.Mask.checked(prepared.weight)),
            self.method,
            starts=search.starts,
            key=jax.random.key(search.seed),
            networks=self.networks.found,
            guess=guess,
            label=self.label,
            image_ids=[settings["inputs"]["image_id"]],
            chunk=search.chunk or None,
            progress=progress,
            watch=recorder,
            watch_every=film.interval(self.method.steps) if recorder else 1,
            state=state if stored else None,
        )
        seconds = time.perf_counter() - began
        selection = inpaint.select(
            result, keep=min(search.keep, len(result.scores)), by=search.select, scores=self.scores(result, guess)
        )
        figures = report.outcome(prepared, result, selection, seconds)
        if warning and not show:
            figures["warnings"].insert(0, warning)
        photos = self._write(folder, prepared, truth, result, selection, recorder, settings | figures)
        state.remove()
        sizes = {"starts": len(result.scores), "kept": len(selection.starts), "photos": photos}
        return row | {"status": "done"} | figures | sizes

    def _write(self, folder, prepared, truth, result, selection, recorder, settings) -> bool:
        """Writes the folder of one image; returns whether results at the photograph's own size are in it."""
        noise, frame, photo = self.method.rendered_with, prepared.frame, prepared.photograph
        # What is written must be what the stored latents give when they are rendered again, to the last bit.
        raw = selection.images if noise is None else rendering.render(self.model, selection.ws, noise=noise)
        restored = self.composites(raw, prepared, result.expected)
        sigma = _config.paste_sigma(self.config)
        paste = functools.partial(framing.paste, photo.levels, photo.known, frame=frame, sigma=sigma)
        photos = [] if frame.whole else [paste(picture) for picture in restored]

        def show(ws: np.ndarray) -> np.ndarray:
            return self.composites(rendering.render(self.model, ws, noise=noise), prepared, result.expected)

        def write_film(place: pathlib.Path) -> None:
            path = place / f"film.{_FILM_FORMAT.value}"
            film.write_film(path, recorder, selection.starts, show=show, last=restored)

        extras = [write_film] if recorder else []
        if (asked := networks.direction(self.config)) is not None:
            extras.append(functools.partial(self._write_along, prepared, *asked))
        device, towards = jax.devices()[0], _config.takes_means(self.config, result.expected)
        output.write_restoration(
            folder,
            model=self.model,
            prepared=prepared,
            truth=truth,
            result=result,
            selection=selection,
            raw=raw,
            restored=restored,
            photos=photos,
            noise=noise,
            extras=extras,
            settings=settings | {"device": f"{device.platform} {device.device_kind}"},
            expected=result.expected if towards else None,
        )
        return bool(photos)

    def _write_along(self, prepared: Prepared, direction: int, reach: float, place: pathlib.Path) -> None:
        """Writes a sheet of results along one direction of a learned inpainter."""
        picture = sheet.along_sheet(
            self.method.inpainter,
            self.model.generator,
            prepared.image,
            prepared.known,
            direction=direction,
            reach=reach,
            composite=functools.partial(self.composites, prepared=prepared),
        )
        image_io.write_image(place / "along.png", picture)


def _restore_all(
    restorer: _Restorer, sources: list[inputs.Source], folder: pathlib.Path, share: hosts.Share, log: report.Log
) -> int:
    """Restores this process's share of the images of a folder one after the other; returns the exit code."""
    began, own, rows = time.perf_counter(), share.of(list(enumerate(sources, 1))), []
    display = report.Display(len(own), quiet=_QUIET.value, log=log)
    for place, (number, source) in enumerate(own, 1):
        try:
            progress = display.search(place, source.name)
            row = restorer.restore(source, _photograph(source), folder / source.name, show=False, progress=progress)
        except Exception as error:
            if flags.FLAGS.debug:
                traceback.print_exc()
            defect = (
                "" if isinstance(error, ValueError | OSError | MemoryError) else f"unexpected {type(error).__name__}: "
            )
            row = {"image": str(source.image), "status": "failed", "error": defect + " ".join(str(error).split())}
        rows.append({"number": number} | row)
        display.ended(rows[-1])
        if not _QUIET.value or row.get("warnings"):
            report.print_row(rows[-1], len(sources))
        output.write_summary(folder, rows, **share._asdict())
    seconds = time.perf_counter() - began
    log.write("end", {"images": len(rows), "seconds": round(seconds, 2)})
    return report.print_end(rows, folder, steps=restorer.method.steps, seconds=seconds)


def _load_model() -> sg.Model:
    model = networks.load_generator(_GENERATOR.value, bfloat16_from=_BFLOAT16.value)
    return model if _ENCODER.value is None else checkpoint.with_encoder(model, _ENCODER.value)


def _introduce(restorer: _Restorer, images: int, notes: list[str], share: hosts.Share, log: report.Log) -> None:
    """Says what will be done, and with what."""
    device, search, method = jax.local_devices()[0], restorer.config.search, restorer.method
    own = len(share.of(range(images)))
    if share.count > 1:
        _say(f"process    {share.index} of {share.count}, with {own} of {images} images")
    for line in report.introduction(restorer.config, method, restorer.model, _GENERATOR.value):
        _say(line)
    for note in notes:
        _say(f"note       {note}")
    if _many():
        meaning = report.hole_meaning(_MASK.value, _POLARITY.value)
        _say(f"images     {images} in {_IMAGE.value} ({meaning})")
    facts = {"images": own, "processes": share.count, "device": f"{device.platform} {device.device_kind}"}
    facts |= {"devices": jax.local_device_count(), "generator": restorer.model.content_hash}
    facts |= {"method": restorer.config.method, "starts": search.starts, "steps": method.steps}
    log.write("begin", facts)


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    with hosts.joined() as share:
        return _restore(share)


def _check_film(config: _config.RestoreConfig, method: inpaint.Method | FeedForward | Fill | None) -> None:
    if _FILM.value and isinstance(method, inpaint.Method | FeedForward) and method.rendered_with is None:
        raise ValueError(f"--film shows latents, and those of the method {config.method} do not give its images alone")


def _restore(share: hosts.Share) -> int:
    config = _resolved()
    named = named_methods.METHODS.get(config.method)
    later = named is not None and (named.needs_network or (named.needs_images and _FIT_DATA.value))
    # Those that are fitted or trained need the generator; the others tell wrong settings before anything is loaded.
    method = None if later else named_methods.build_method(config)
    _check_film(config, method)
    alignment.check(landmarks=_LANDMARKS.value, image=_IMAGE.value)
    sources, notes = _sources()
    if share.count > 1 and not _many():
        raise ValueError("--distributed shares the images of a folder; --image names no folder")
    held = (output.SUMMARY,) if _many() else (output.SCORES, alignment.FACES)
    folder = output.check_folder(_OUTPUT.value, held=held)
    # Before the model is loaded, so that a wrong file is told at once.
    photograph = None if _many() or sources[0] is None else _photograph(sources[0])
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    model, fitted_on = _load_model(), None
    inpainter, hashes = networks.load_inpainter(config, model)
    if inpainter is not None:
        method = named_methods.build_method(config, inpainter=inpainter)
        _check_film(config, method)
    elif method is None:
        images = _training_images(model)
        method = named_methods.build_method(config, images=images)
        fitted_on = hashlib.sha256(images.tobytes()).hexdigest()
    asked = networks.load(method.needs, method.attributes)
    asked.hashes.update(hashes)
    restorer = _Restorer(config, method, model, asked, _label(model), fitted_on)
    log = report.Log(None if _DRY_RUN.value else _JSON_LOG.value, process=share.index)
    _introduce(restorer, len(sources), notes, share, log)
    if _DRY_RUN.value:
        return report.print_plan(restorer.plan(share.of(sources), folder))
    if _many():
        output.begin_summary(folder)
        return _restore_all(restorer, sources, folder, share, log)
    display = report.Display(1, quiet=_QUIET.value, log=log)
    row = restorer.restore(sources[0], photograph, folder, show=True, progress=display.search(1, "image"))
    display.ended(row)
    log.write("end", {"images": 1, "seconds": row.get("seconds", 0.0)})
    report.print_single(row, folder, method.steps)
    return 0
