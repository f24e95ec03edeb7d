# SPDX-License-Identifier: Apache-2.0
"""`solve`: all starts of all images through all phases of a method, a chunk at a time."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import stylegan_jax as sg
from inpaint import losses
from inpaint.objective import ROLES, Context, PSpace
from inpaint.problem import Problem
from inpaint.search import chunks as _chunks
from inpaint.search import feed_forward, loop, memory
from inpaint.search.chunks import Begun, Chunks, Told
from inpaint.search.initialise import Given, Initialisation, screening
from inpaint.search.method import FeedForward, Fill, Method, Phase
from inpaint.search.result import Progress, Result, Watched
from inpaint.search.saved import SavedSearch
from stylegan_jax import encoders, latents

_ATTEMPT = 2**24  # between the numbers of the candidates of a start's attempts


def make_context(
    model: sg.Model | sg.Generator, *, networks: Mapping[str, nnx.Module] | None = None, needs: Iterable[str] = ()
) -> Context:
    """Returns what terms need from a model; a bare generator gets statistics of W estimated with a fixed key.

    Args:
        model: a loaded model, or a generator.
        networks: by role; encoder and discriminator are the model's own where they are not given.
        needs: roles that will be looked for, see `inpaint.objective.ROLES`.

    Raises:
        ValueError: where something is needed and not there.
    """
    if not isinstance(model, sg.Model):
        model = sg.Model(model)
    statistics, key = model.w_statistics, jax.random.key(0)
    if statistics is None:
        statistics = latents.estimate_w_statistics(key, model.generator)
    given = {"encoder": model.encoder, "discriminator": model.discriminator} | dict(networks or {})
    unknown = sorted(set(given) - set(ROLES))
    if unknown:
        raise ValueError(f"no network has the role {unknown[0]!r}; roles are {', '.join(ROLES)}")
    found = {role: given[role] for role in sorted(needs) if given.get(role) is not None}
    for role in needs:
        if role not in found and role not in ("guess", "expected", "p_space"):
            raise ValueError(f"the objective needs the role {role!r}, which nothing fills: {ROLES[role]}")
    p_space = None
    if "p_space" in needs:
        own = latents.estimate_w_statistics(key, model.generator, transform=losses.p_space)
        p_space = PSpace(own.mean, own.whitening(), jnp.sqrt(jnp.diagonal(own.covariance)))
    return Context(
        model.generator,
        statistics.mean,
        statistics.whitening(),
        networks=found,
        p_space=p_space,
        w_deviation=jnp.sqrt(jnp.trace(statistics.covariance)),
    )


def ask_encoder(model: sg.Model | sg.Generator, problem: Problem, question: Callable[..., Array]) -> Array:
    """Returns what the encoder says of a batch of problems, `[images, ...]`; `question` is a function of
    `stylegan_jax.encoders`."""
    encoder = model.encoder if isinstance(model, sg.Model) else None
    if encoder is None:
        raise ValueError(
            "the method asks an encoder and the generator has none; choose another initialisation (prescreen, random, "
            "mean) and method, or train one with `python -m inpaint train`"
        )
    if problem.operator.known is None:
        raise ValueError("the encoder reads images with holes, and this problem has no mask")
    known = (problem.operator.known > 0.5).astype(jnp.float32)
    # One at a time: what is said of an image must not depend on how many there are.
    pairs = zip(problem.measurement, known, strict=True)
    return jnp.stack([question(encoder, x[None], known=k[None], generator=model.generator)[0] for x, k in pairs])


def _begun(
    model: sg.Model | sg.Generator,
    problem: Problem,
    method: Method,
    context: Context,
    given: Array | None,
    *,
    single: bool,
) -> Array | None:
    """Returns the latents `[images, num_ws, w_dim]` that starts begin about: those given, an encoder's, or None."""
    if isinstance(method.initialisation, Given) and given is None:
        raise ValueError("the method begins with given latents, and none are given; pass guess (--latents)")
    if "guess" not in method.needs:
        return None
    if given is None:
        return ask_encoder(model, problem, encoders.encode)
    config = context.generator.config
    guess, latent = jnp.asarray(given, context.w_mean.dtype), (config.num_ws, config.w_dim)
    wanted = latent if single else (problem.measurement.shape[0], *latent)
    if guess.shape != wanted:
        raise ValueError(f"guess must be {list(wanted)}, got {list(guess.shape)}")
    return guess[None] if single else guess


def _check(generator: sg.Generator, problem: Problem, starts: int, label: Array | None) -> None:
    config = generator.config
    size = (config.resolution, config.resolution, config.image_channels)
    # Over whole problems: an operator may have no array of its own.
    measure = jax.vmap(lambda problem, x: problem.operator(x), in_axes=(0, None))
    try:
        shape = jax.eval_shape(measure, problem, jax.ShapeDtypeStruct(size, jnp.float32)).shape
    except (TypeError, ValueError):
        shape = None  # the operator is of another size
    if shape != problem.measurement.shape:
        raise ValueError(
            f"the generator's images are {list(size)}, which does not fit the problem: its measurements are "
            f"{list(problem.measurement.shape[1:])}; resize the image and mask"
        )
    if starts < 1:
        raise ValueError(f"starts must be at least 1, got {starts}")
    if label is not None and (not config.c_dim or label.shape != (config.c_dim,)):
        raise ValueError(f"label must be [{config.c_dim}] for this generator (c_dim {config.c_dim}), got {label.shape}")


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


@functools.partial(jax.jit, static_argnames=("graph", "initialisation", "phase"))
def _draw(
    key: Array,
    ids: Array,
    candidates: Array,
    guesses: Array | None,
    label: Array | None,
    arrays: Any,
    *,
    graph: Any,
    initialisation: Initialisation,
    phase: Phase,
) -> Begun:
    """Returns where candidates begin, `[n, ...]`; `ids` and `candidates` `[n]` name their keys, `guesses`
    `[n, num_ws, w_dim]` are an encoder's."""
    context = loop.merge_context(graph, arrays)
    c_dim = context.generator.config.c_dim

    def one(image_id: Array, candidate: Array, guess: Array | None) -> Begun:
        own = jax.random.fold_in(jax.random.fold_in(key, image_id), candidate)
        v_key, c_key = jax.random.split(own)
        c = latents.random_labels(c_key, c_dim, 1)
        c = c if c is None else c[0].astype(context.w_mean.dtype)
        c = c if label is None else label
        v = initialisation.draw(loop.host(v_key, context, c, phase), context._replace(guess=guess), phase.space)
        return Begun(v, c, jax.random.key_data(jax.random.fold_in(own, feed_forward.STEPS)))

    return jax.vmap(one)(ids, candidates, guesses)


def _choose(pool: Chunks, begun: Begun, context: loop.Frozen, method: Method, starts: int) -> np.ndarray:
    """Returns which candidates of every image become starts, `[images, starts]`, best by the last phase's objective or
    by the terms that the initialisation names."""
    if pool.per_image == starts:
        return np.tile(np.arange(starts), (pool.images, 1))
    first, last, by = method.phases[0], method.phases[-1], screening(method.initialisation)
    if by:
        last = dataclasses.replace(last, terms=by, stop=None)

    def score(index: np.ndarray, real: int) -> np.ndarray:
        lanes = context.place(pool.lanes(index, begun))
        lifted = loop.lift(context.place(begun.take(index)), lanes, context, source=first, target=last)
        return np.asarray(loop.evaluate(lifted, lanes, context, last).total)[:real]

    scores = pool.run(score)
    return np.argsort(np.where(np.isfinite(scores), scores, np.inf), axis=1, kind="stable")[:, :starts]


def _drawn(
    key: Array,
    ids: np.ndarray,
    candidates: np.ndarray,
    chunks: Chunks,
    context: loop.Frozen,
    method: Method,
    label: Array | None,
) -> Begun:
    """Returns where `candidates` `[images, n]` begin, all lanes; `ids` `[images]` name the images' keys."""
    count = candidates.shape[1]
    return _draw(
        key,
        jnp.asarray(np.repeat(ids, count)),
        jnp.asarray(candidates.reshape(-1)),
        None if chunks.guess is None else jnp.repeat(chunks.guess, count, axis=0),
        label,
        context.arrays,
        graph=context.graph,
        initialisation=method.initialisation,
        phase=method.phases[0],
    )


def _begin(
    key: Array, ids: np.ndarray, chunks: Chunks, context: loop.Frozen, method: Method, label: Array | None
) -> tuple[Begun, np.ndarray]:
    """Returns where the starts of `chunks` begin, all lanes `[images * starts, ...]`, and which candidates they were,
    `[images, starts]`; `ids` `[images]` name the images' keys."""
    images, starts = chunks.images, chunks.per_image
    count = method.initialisation.candidates(starts)
    drawn = _drawn(key, ids, np.tile(np.arange(count), (images, 1)), chunks, context, method, label)
    # The sweep over the pool takes the same lanes at once as the search, so that both use one compiled evaluation.
    pool = Chunks(chunks.problem, chunks.guess, count, chunks.size, devices=chunks.devices)
    chosen = _choose(pool, drawn, context, method, starts)
    lanes = (np.arange(images)[:, None] * count + chosen).reshape(-1)
    return jax.tree.map(lambda x: x[lanes], drawn), chosen


def _origins(lanes: np.ndarray, begun: Begun, chosen: np.ndarray) -> dict[str, Any]:
    """Returns what the starts that were searched to the end began with, `[images, starts, ...]`.

    Args:
        lanes: `[images, starts]`, which of the lanes of their image they are.
        begun: where all lanes began.
        chosen: `[images, lanes]`, which candidates those were.
    """
    index = np.arange(len(lanes))[:, None], lanes
    labels = None if begun.c is None else np.asarray(begun.c).reshape(*chosen.shape, -1)[index]
    return {"candidates": chosen[index], "first": chosen[index], "labels": labels}


def _again(
    found: dict[str, Any],
    key: Array,
    ids: np.ndarray,
    chunks: Chunks,
    context: loop.Frozen,
    method: Method,
    label: Array | None,
    *,
    attempt: int,
    steps_per_call: int,
) -> dict[str, Any]:
    """Returns `found` with every frozen start searched anew, from a candidate that only its number and the attempt
    name; the better of the two is the start's result."""
    images, starts = np.nonzero(found["frozen"])
    if not len(images):
        return found
    candidates = found["first"][images, starts, None] + attempt * _ATTEMPT
    index = jnp.asarray(images)
    problem = jax.tree.map(lambda x: x[index], chunks.problem)
    guess = None if chunks.guess is None else chunks.guess[index]
    # How many there are is by chance: powers of two, so that few programs are compiled for them.
    size = min(chunks.size, 2 ** (len(images) - 1).bit_length())
    own = Chunks(problem, guess, 1, size, devices=chunks.devices, padded=True)
    begun = _drawn(key, ids[images], candidates, own, context, method, label)
    method = dataclasses.replace(method, halving=None)
    new = _chunks.search(own, begun, context, method, starts=1, steps_per_call=steps_per_call, told=Told())
    found["spent"] = found["spent"] + np.bincount(images, new.pop("spent"), minlength=chunks.images)
    found["forwards"] = found["forwards"] + np.bincount(images, minlength=chunks.images)
    del new["lanes"]
    new |= {"candidates": candidates, "labels": None if begun.c is None else np.asarray(begun.c)[:, None]}
    better = new["scores"][:, 0] < found["scores"][images, starts]
    place = images[better], starts[better]

    def put(old: np.ndarray, value: np.ndarray) -> np.ndarray:
        old = np.array(old)
        old[place] = value[better, 0]
        return old

    return found | jax.tree.map(put, {name: found[name] for name in new}, new)


def _ids(image_ids: Sequence[int] | None, problem: Problem) -> np.ndarray:
    images = problem.measurement.shape[0]
    ids = np.arange(images) if image_ids is None else np.asarray(image_ids)
    if ids.shape != (images,):
        raise ValueError(f"image_ids must name each of the {images} images once, got {ids.shape[0]}")
    return ids


def solve(
    model: sg.Model | sg.Generator,
    problem: Problem,
    method: Method | FeedForward | Fill,
    *,
    starts: int = 8,
    key: Array,
    networks: Mapping[str, nnx.Module] | None = None,
    guess: Array | None = None,
    label: Array | None = None,
    image_ids: Sequence[int] | None = None,
    chunk: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    steps_per_call: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    watch: Callable[[Watched], None] | None = None,
    watch_every: int = 1,
    state: SavedSearch | None = None,
) -> Result:
    """Searches for latents whose renders explain a measurement, from many starts at once.

    Args:
        model: a loaded model, or a generator (whose statistics of W are then estimated).
        problem: one problem, or a batch of them (`Problem.stack`).
        method: see `inpaint.methods`; a fill ignores all options that follow and has one start, and a trained network
            takes no `guess`.
        starts: latents optimised for every image, to the end (with halving more of them begin), or samples of a trained
            network.
        key: of everything random. A start's result depends on the key, its image's id and its own number only (with
            halving, which starts there are depends on all of their image).
        networks: what terms of the objective need beside the model, by role (`inpaint.objective.ROLES`), for example
            `{"classifier": stylegan_jax.classifiers...}`.
        guess: latents `[num_ws, w_dim]` (`[images, num_ws, w_dim]` for a batch) that take the place of the encoder's.
        label: class `[c_dim]` for a conditional generator; None gives every start a class of its own.
        image_ids: non-negative integers that stand for the images in the keys (default 0, 1, ...).
        chunk: starts run at once, rounded up to a multiple of the devices; by default what fits them, as the compiled
            step says. Where memory does not suffice it is halved.
        devices: that share the starts, each running its own; by default all of this process.
        steps_per_call: steps per device call; by default 1 on CPU and 25 elsewhere.
        progress: called now and then.
        watch: called with the latents of a chunk before its first step, about every `watch_every` steps (device calls
            are not cut for it), and after its last.
        state: where the running search is stored, and looked for: an interrupted one goes on. The caller removes it
            once the result is safe.

    Returns:
        All starts, unsorted; `inpaint.select` chooses among them.

    Raises:
        ValueError: where model, problem and options do not fit each other.
    """
    single = not problem.batched
    if single:
        problem = Problem.stack([problem])
    if isinstance(method, Fill):
        generator = model.generator if isinstance(model, sg.Model) else model
        _check(generator, problem, 1, None)
        return _result(problem, _fill(problem, method), single=single)
    if isinstance(method, FeedForward):
        feed_forward.check(model, problem, label)
    elif method.masked and problem.operator.known is None:
        raise ValueError(
            f"the method {method.name} compares known pixels (its term {method.masked}), and this measurement shows "
            "none; take a method that compares measurements, such as latent_search"
        )
    context = make_context(model, networks=networks, needs=method.needs)
    label = None if label is None else jnp.asarray(label, context.w_mean.dtype)
    _check(context.generator, problem, starts, label)
    ids = _ids(image_ids, problem)
    devices = list(jax.local_devices() if devices is None else devices)
    if steps_per_call is None:
        steps_per_call = 1 if jax.default_backend() == "cpu" else 25
    _check_counts(devices=len(devices), steps_per_call=steps_per_call, watch_every=watch_every, chunk=chunk)
    # One device that holds the arrays already needs no copy of them.
    placed = None if devices == jax.local_devices()[:1] else devices
    size = chunk or memory.default_chunk(context.generator, devices=len(devices))
    told = Told(progress, watch, watch_every)
    if isinstance(method, FeedForward):
        if guess is not None:
            raise ValueError(f"{method.name} begins with its network's samples, so guess has no meaning")
        options = dict(size=chunk, default=size, steps_per_call=steps_per_call, told=told, saved=state)
        found = feed_forward.run(context, problem, method, ids=ids, starts=starts, key=key, devices=placed, **options)
        forwards, gradients = method.evaluations(starts)
        return _result(problem, found, single=single, forwards=forwards, gradients=gradients)
    if watch is not None and method.halving is not None:
        raise ValueError("a search by halving cannot be watched: most of its starts do not reach the end")
    guess = _begun(model, problem, method, context, guess, single=single)
    asked = problem
    if "expected" in method.needs and problem.expected is None:
        problem = dataclasses.replace(problem, expected=ask_encoder(model, problem, encoders.expected))
    frozen = loop.split_context(context, devices=placed)
    begins = starts if method.halving is None else method.halving.begins(starts)
    chunks = Chunks(problem, guess, begins, size, devices=frozen.devices)
    begun, chosen = _begin(key, ids, chunks, frozen, method, label)
    if chunk is None:
        _chunks.fit_chunk(chunks, begun, frozen, method, steps=steps_per_call)
    if state is not None:
        chunks.resize(state.open(lambda: chunks.describe(begun, frozen, method, steps_per_call), chunks.size))
    found = _chunks.search(
        chunks, begun, frozen, method, starts=starts, steps_per_call=steps_per_call, told=told, saved=state
    )
    found |= _origins(found.pop("lanes"), begun, chosen)
    found["forwards"] = np.full(len(ids), method.evaluations(starts)[0])
    for attempt in range(1, method.restarts + 1):
        found = _again(found, key, ids, chunks, frozen, method, label, attempt=attempt, steps_per_call=steps_per_call)
    del found["first"]
    # Of a batch the means, rounded up.
    forwards, gradients = (int(np.ceil(found.pop(name).mean())) for name in ("forwards", "spent"))
    found |= {"chunk": chunks.size, "expected": _means(model, asked, problem)}
    return _result(asked, found, single=single, forwards=forwards, gradients=gradients)


def _means(model: sg.Model | sg.Generator, asked: Problem, problem: Problem) -> np.ndarray | None:
    """Returns what is expected of pixels, `[images, s, s, c]`; other encoders than linear ones say it of latents only,
    and two renders that are mixed show two faces."""
    linear = isinstance(model, sg.Model) and isinstance(model.encoder, encoders.LinearEncoder)
    if problem.expected is None or (asked.expected is None and not linear):
        return None
    return np.asarray(problem.expected)


def _result(problem: Problem, found: dict[str, Any], *, single: bool, forwards: int = 0, gradients: int = 0) -> Result:
    chunk = found.pop("chunk", 1)
    if single:
        found = {name: jax.tree.map(lambda x: x[0], value) for name, value in found.items()}
        problem = jax.tree.map(lambda x: x[0], problem)
    return Result(problem=problem, chunk=chunk, forwards=forwards, gradients=gradients, **{"ws": None} | found)


def _fill(problem: Problem, method: Fill) -> dict[str, Any]:
    images, raw, scores = problem.measurement.shape[0], [], []
    for i in range(images):
        one = jax.tree.map(lambda x, i=i: x[i], problem)
        raw.append(np.asarray(method.function(one), np.float32))
        fit = losses.l2(one.operator(jnp.asarray(raw[-1])), one.measurement, one.operator.weight)
        scores.append(np.asarray(fit))
    fit = np.stack(scores)[:, None]
    return {
        "ws": None,
        "variables": None,
        "raw": np.stack(raw)[:, None],
        "scores": np.where(np.isfinite(fit), fit, np.inf),
        "terms": {"l2": fit},
        "traces": np.zeros((images, 1, 0), np.float32),
        "frozen": np.zeros((images, 1), bool),
        "steps": np.zeros((images, 1), int),
        "candidates": np.zeros((images, 1), int),
        "labels": None,
    }
