# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint edit`: changes what a finished restoration shows, and keeps the known pixels.

    python -m inpaint edit --restored out/restore --direction attribute:teeth_visible --output out/edit
    python -m inpaint edit --restored out/restore --direction sefa:0 --layers 0-3 --strength=-1,1
    python -m inpaint edit --restored out/restore --direction smile.npy
    python -m inpaint edit --restored out/restore --mix 1,2 --layers 0-3

Writes edited_I_J.png (result I of the restoration, edit J), raw_I_J.png, photo_I_J.png where the restoration had such,
edit_sheet.png, latents.npz (for `restore --latents` and `stylegan_jax render`), direction.npy and edit.json.
"""

import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

import inpaint
import stylegan_jax as sg
from inpaint import config, contact_sheet, edit, framing, output, restored, terms
from inpaint.learned import inpainters
from inpaint.search import feed_forward
from stylegan_jax import checkpoint, classifiers, image_io, rendering
from stylegan_jax.generator import Pyramid

EDIT = "edit.json"
ATTRIBUTE, SEFA = "attribute:", "sefa:"
HOLD = 1.0  # weight of the squared way along the direction, in standard deviations

_RESTORED = flags.DEFINE_string("restored", "out/restore", "Folder of a finished restoration of one image.")
_DIRECTION = flags.DEFINE_string(
    "direction",
    None,
    "Where to: sefa:K (the K-th direction of the weights, from 0), attribute:NAME (fitted by a classifier), or a .npy "
    "file [w_dim] or [1, w_dim], such as a published boundary or the direction.npy of an earlier edit.",
)
_ORTHOGONAL = flags.DEFINE_list(
    "orthogonal_to", [], "Directions, named as above, that the edit leaves alone (conditional manipulation)."
)
_STRENGTH = flags.DEFINE_list(
    "strength",
    None,
    "How far, in standard deviations of W along the direction; by default -4,-2,0,2,4, and of sefa half of it.",
)
_LAYERS = flags.DEFINE_string(
    "layers",
    None,
    "Latents edited, as FIRST-LAST from 0, or one; by default 2-6 of StyleGAN1 and 2 (8 to 32 px), else all.",
)
_MIX = flags.DEFINE_list("mix", None, "A,B: result A with the --layers of result B, in place of --direction.")
_RESULTS = flags.DEFINE_list("results", ["1"], "Which results of the restoration, from 1, the best one.")
_REFIT = flags.DEFINE_integer(
    "refit",
    50,
    "Steps of a search that fits the known pixels again and holds the edit; 0: none.",
    lower_bound=0,
)
_GENERATOR = flags.DEFINE_string("generator", None, "Checkpoint directory; by default what the restoration names.")
_CLASSIFIER = flags.DEFINE_string(
    "classifier", None, "Checkpoint of the classifier that knows the attribute; by default the demo one."
)
_SAMPLES = flags.DEFINE_integer(
    "samples", 2000, "Random latents that an attribute's direction is fitted on.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Of those latents.")
_OUTPUT = flags.DEFINE_string("output", "out/edit", "Folder for the results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier edit in the output folder.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")


class _Edits(NamedTuple):
    """Latents `[k, s, num_ws, w_dim]`, s edits of k results, the name of every edit, which are changed `[s]`, and the
    step that is to be held `[w_dim]`, of length 1 / standard deviation, or None."""

    ws: np.ndarray
    names: list[str]
    changed: np.ndarray
    held: np.ndarray | None


def _numbers(flag: flags.FlagHolder, kind: type) -> list[Any]:
    try:
        found = [kind(text) for text in flag.value]
    except ValueError:
        raise ValueError(f"--{flag.name} must be numbers separated by commas, got {','.join(flag.value)!r}") from None
    if not np.isfinite(found).all():
        raise ValueError(f"--{flag.name} must be finite, got {','.join(flag.value)!r}")
    return found


def _strengths() -> list[float]:
    """Returns the strengths asked for, or what suits the direction.

    By eye: an attribute changes slowly; the first directions of the weights are those of the strongest changes, and
    at four standard deviations faces fall apart.
    """
    if _STRENGTH.value is not None:
        return _numbers(_STRENGTH, float)
    reach = 2.0 if (_DIRECTION.value or "").startswith(SEFA) else 4.0
    return [reach * x for x in (-1, -0.5, 0, 0.5, 1)]


def _layers() -> tuple[int, int] | None:
    if _LAYERS.value is None:
        return None
    first, dash, last = _LAYERS.value.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ValueError(f"--layers must be FIRST-LAST, such as 0-3, or one number, got {_LAYERS.value!r}")
    return int(first), int(last or first)


def _default_layers(config: Any) -> tuple[int, int] | None:
    """Returns the layers that are moved unless others are asked for; None for all.

    By eye, a mouth is opened and closed by the latents of 8 to 32 px. Those before also turn the head and change the
    light, those behind only colours, and the known pixels then have to be fitted again from farther away.
    """
    return (2, min(6, config.num_ws - 1)) if isinstance(config, Pyramid) and config.num_ws >= 4 else None


def _kept(numbers: list[int], count: int, flag: str) -> list[int]:
    """Returns numbers of results, from 1, after checking that they exist."""
    wrong = [number for number in numbers if not 1 <= number <= count]
    if wrong:
        raise ValueError(f"--{flag} names result {wrong[0]}, and the restoration has 1 to {count}")
    return numbers


class _Editor:
    """What all edits of a call share."""

    def __init__(self, model: sg.Model, found: restored.Restored, layers: tuple[int, int] | None):
        self.model, self.found, self.layers = model, found, layers
        self.classifier, self.classifier_hash = None, None
        self.facts: dict[str, Any] = {}
        self.inpainter = None if found.network is None else self._load_inpainter()

    def _load_inpainter(self) -> inpaint.Inpainter:
        """Returns the network that made the restoration."""
        name, path = self.found.settings["method"], self.found.settings["config"].get("network")
        inpainter, digest = inpainters.load(name, self.model, path=path or None)
        if digest != self.found.network:
            raise ValueError(
                f"the restoration was made by the {name} network {self.found.network[:12]}, and this is {digest[:12]}"
            )
        if not hasattr(inpainter, "restyled"):
            raise ValueError(f"results of the method {name} have no styles that can be edited")
        return inpainter

    def render(self, ws: np.ndarray) -> np.ndarray:
        """Returns the renders `[n, h, w, c]` of latents `[n, num_ws, w_dim]`, as the restoration made its own."""
        found = self.found
        if self.inpainter is None:
            return rendering.render(self.model, ws, noise=found.noise)
        return feed_forward.restyled(self.model.generator, self.inpainter, ws, found.image, found.weight)

    def load_classifier(self, attribute: str) -> None:
        """Loads the classifier, unless it is there, and checks that it knows the attribute."""
        if self.classifier is None:
            path = _CLASSIFIER.value or checkpoint.CLASSIFIER
            self.classifier, self.classifier_hash = checkpoint.load_network(path, classifiers.StoredClassifier)
        classifiers.attribute_index(self.classifier, attribute)

    def direction(self, name: str) -> np.ndarray:
        """Returns the unit vector `[w_dim]` that a name stands for."""
        generator = self.model.generator
        if name.startswith(SEFA):
            number, width = name.removeprefix(SEFA), generator.config.w_dim
            if int(number) >= width:
                raise ValueError(f"a direction of the weights is sefa:0 to sefa:{width - 1}, got {name!r}")
            return edit.sefa(generator, layers=self.layers, count=int(number) + 1)[0][-1]
        if name.startswith(ATTRIBUTE):
            attribute = name.removeprefix(ATTRIBUTE)
            self.load_classifier(attribute)
            print(f"direction  {name}: {_SAMPLES.value} samples are made and judged", flush=True)
            key, noise = jax.random.key(_SEED.value), self.found.noise
            boundary = edit.fit_attribute(
                key, generator, self.classifier, attribute=attribute, samples=_SAMPLES.value, noise=noise
            )
            print(f"           right on {boundary.accuracy:.0%} of {boundary.held_out} held-out latents", flush=True)
            fitted = {"accuracy": boundary.accuracy, "fitted": boundary.fitted, "held_out": boundary.held_out}
            fitted |= {"samples": _SAMPLES.value, "seed": _SEED.value, "classifier": self.classifier_hash}
            self.facts.setdefault("boundaries", {})[name] = fitted
            return boundary.normal
        return edit.read_direction(name, w_dim=generator.config.w_dim)

    def moved(self, ws: np.ndarray, strengths: list[float]) -> tuple[_Edits, np.ndarray]:
        """Returns `ws` `[k, num_ws, w_dim]` moved by every strength, and the direction `[w_dim]`."""
        direction = self.direction(_DIRECTION.value)
        direction = edit.orthogonalise(direction, [self.direction(name) for name in _ORTHOGONAL.value])
        statistics = self.model.w_statistics
        if statistics is None:
            statistics = sg.estimate_w_statistics(jax.random.key(0), self.model.generator)
        unit = edit.spread(direction, statistics)
        go = functools.partial(edit.move, spread=unit, layers=self.layers)
        edited = np.stack([np.asarray(go(ws, direction, strength)) for strength in strengths], 1)
        self.facts |= {"spread": unit, "strengths": strengths, "orthogonal_to": _ORTHOGONAL.value}
        held = direction / max(unit, 1e-6)
        return _Edits(edited, [f"{x:+g}" if x else "0" for x in strengths], np.asarray(strengths) != 0, held), direction

    def mixed(self, first: int, second: int) -> _Edits:
        """Returns two results (numbers from 1) and the first with layers of the second."""
        a, b = self.found.ws[first - 1], self.found.ws[second - 1]
        ws = np.stack([a, b, np.asarray(edit.mix(a, b, self.layers))])[None]
        names = [f"result {first}", f"result {second}", f"{first}, layers {_LAYERS.value} of {second}"]
        return _Edits(ws, names, np.asarray([False, False, True]), None)

    def refitted(self, edits: _Edits, steps: int) -> _Edits:
        """Returns the edits after a search that begins with them, fits the known pixels and holds the direction."""
        found, chosen = self.found, edits.ws[:, edits.changed]
        if not steps or not chosen.size:
            return edits
        if self.inpainter is not None:
            print("refit      none: the network's skip path shows the known pixels", flush=True)
            return edits
        ws = chosen.reshape(-1, *chosen.shape[2:])
        one = inpaint.Problem.observe(found.image * (found.known > 0)[..., None], inpaint.operators.Mask(found.weight))
        others = () if edits.held is None else (terms.hold_term(edits.held, HOLD),)
        method = inpaint.methods.latent_search(
            steps=steps,
            coarse_share=0,
            lr=0.02,
            mahalanobis=0.0,
            guess_distance=0.02,
            noise=found.noise,
            initialisation=inpaint.Given(0.0),
            others=others,
        )
        problem = inpaint.Problem.stack([one] * len(ws))
        print(f"refit      {len(ws)} edits, {steps} steps", flush=True)
        result = inpaint.solve(self.model, problem, method, starts=1, key=jax.random.key(0), guess=ws)
        again = edits.ws.copy()
        again[:, edits.changed] = result.ws[:, 0].reshape(chosen.shape)
        return edits._replace(ws=again)

    def probabilities(self, images: np.ndarray, attribute: str) -> np.ndarray:
        """Returns the classifier's probability `[n]` of an attribute on composites `[n, h, w, c]`."""
        ask = jax.jit(classifiers.log_odds, static_argnums=2)
        return np.asarray(jax.nn.sigmoid(ask(self.classifier, images, attribute)), np.float64)


def _check_flags() -> None:
    if (_DIRECTION.value is None) == (_MIX.value is None):
        raise ValueError("name either a --direction (sefa:0, attribute:NAME, FILE.npy) or two results to --mix")
    if _MIX.value is not None and (len(_MIX.value) != 2 or _LAYERS.value is None):
        raise ValueError("--mix takes two results, such as 1,2, and --layers says what of the second is taken")
    if _MIX.value is not None and _ORTHOGONAL.value:
        raise ValueError("--orthogonal_to belongs to a --direction, and --mix has none")
    for flag in (_RESULTS, _STRENGTH):
        if flag.value == []:
            raise ValueError(f"--{flag.name} needs at least one number")
    names = [name for name in (_DIRECTION.value, *_ORTHOGONAL.value) if name is not None]
    for name in names:
        numbered = name.startswith(SEFA) and name.removeprefix(SEFA).isdecimal()
        if not (numbered or name.startswith(ATTRIBUTE) or name.endswith(".npy")):
            raise ValueError(f"unknown direction {name!r}; known: sefa:K (K from 0), attribute:NAME, or a .npy file")
    if _CLASSIFIER.value is not None and not any(name.startswith(ATTRIBUTE) for name in names):
        raise ValueError("--classifier is given, but no direction attribute:NAME asks it")


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    _check_flags()
    strengths = _strengths()
    layers, settings = _layers(), restored.read_settings(_RESTORED.value)
    folder = output.check_folder(_OUTPUT.value, held=(EDIT,))
    if (folder / EDIT).exists() and not _OVERWRITE.value:
        raise ValueError(f"--output {folder} holds an earlier edit; name another folder or pass --overwrite")
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    model = sg.load(_GENERATOR.value or settings.get("checkpoint"))
    found = restored.read_restoration(_RESTORED.value, settings, model)
    for note in found.notes:
        print(f"note       {note}", flush=True)
    count, direction = len(found.ws), None
    if layers is None and _DIRECTION.value is not None:
        layers = _default_layers(model.generator.config)
    editor = _Editor(model, found, layers)
    if _MIX.value is not None:
        numbers = _kept(_numbers(_MIX, int), count, "mix")
        edits, numbers = editor.mixed(*numbers), numbers[:1]
    else:
        numbers = _kept(_numbers(_RESULTS, int), count, "results")
        edits, direction = editor.moved(found.ws[[number - 1 for number in numbers]], strengths)
    edits = editor.refitted(edits, _REFIT.value)
    rows = _write(folder, editor, edits, numbers, direction)
    for row in rows:
        probability = f", probability {row['probability']:.3f}" if "probability" in row else ""
        print(f"{row['picture']:18} {row['edit']}: known pixels met at {row['known_psnr']:.1f} dB{probability}")
    print(f"results    {folder}/edit_sheet.png, edited_I_J.png, {EDIT}")
    return 0


def _write(
    folder: pathlib.Path, editor: _Editor, edits: _Edits, numbers: list[int], direction: np.ndarray | None
) -> list[dict[str, Any]]:
    """Writes the folder of an edit; returns a row for every picture."""
    found, (k, s) = editor.found, edits.ws.shape[:2]
    ws = edits.ws.reshape(k * s, *edits.ws.shape[2:])
    raw = editor.render(ws)
    own = None if found.expected is None else np.repeat(editor.render(found.ws), s, axis=0)
    edited = found.composites(raw, before=own)
    places = [(i, j) for i in numbers for j in range(1, s + 1)]
    rows = [{"picture": f"edited_{i}_{j}.png", "result": i, "edit": edits.names[j - 1]} for i, j in places]
    for row, fit in zip(rows, output.psnr(raw, found.image, found.known), strict=True):
        row["known_psnr"] = float(fit)
    if _DIRECTION.value is not None and _DIRECTION.value.startswith(ATTRIBUTE):
        attribute = _DIRECTION.value.removeprefix(ATTRIBUTE)
        before = found.composites(editor.render(found.ws))
        own = editor.probabilities(before, attribute)
        for row, probability in zip(rows, editor.probabilities(edited, attribute), strict=True):
            row |= {"probability_before": float(own[row["result"] - 1]), "probability": float(probability)}
    titles = [
        f"{row['result']}: {row['edit']}" + (f"  p {row['probability']:.2f}" if "probability" in row else "")
        for row in rows
    ]
    shaped = [x.reshape(k, s, *x.shape[1:]) for x in (edited, np.clip(raw, -1, 1))]
    named = [titles[i * s : (i + 1) * s] for i in range(k)]
    facts = {"restored": _RESTORED.value, "generator": editor.model.content_hash, "direction": _DIRECTION.value}
    facts |= {"mix": _MIX.value, "layers": editor.layers, "refit": _REFIT.value} | editor.facts
    facts |= {"edits": rows, "versions": checkpoint.library_versions()}

    def fill(partial: pathlib.Path) -> None:
        sheet = contact_sheet.edit_sheet(found.image, found.known, *shaped, titles=named)
        image_io.write_image(partial / "edit_sheet.png", sheet)
        for (i, j), picture, render in zip(places, edited, raw, strict=True):
            _write_pictures(partial, f"{i}_{j}.png", found, picture, render)
        made_with = {"noise_mode": found.noise, "generator_hash": editor.model.content_hash or ""}
        np.savez(partial / restored.LATENTS, w=ws, **made_with)
        if direction is not None:
            edit.write_direction(partial / "direction.npy", direction)
        image_io.write_text(partial / EDIT, json.dumps(facts, indent=1) + "\n")

    output.write_folder(folder, fill)
    return rows


def _write_pictures(
    folder: pathlib.Path, name: str, found: restored.Restored, picture: np.ndarray, render: np.ndarray
) -> None:
    """Writes one edit: its composite, its render, and the whole photograph where that is another picture."""
    image_io.write_image(folder / f"raw_{name}", render)
    if found.prepared is None:
        image_io.write_image(folder / f"edited_{name}", picture)
        return
    frame, photo = found.prepared.frame, found.prepared.photograph
    image_io.write_image(folder / f"edited_{name}", frame.shown(picture))
    if not frame.whole:
        sigma = config.paste_sigma(found.config)
        levels = framing.paste(photo.levels, photo.known, picture, frame=frame, sigma=sigma)
        image_io.write_image(folder / f"photo_{name}", levels, profile=photo.profile)
