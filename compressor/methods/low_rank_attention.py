"""`low_rank_attention`: cut trained matrices down to their most important directions, as two factors or narrower heads.

Formulas and sources: `compressor.nn.factorisation`, `compressor.nn.attention.head_factorisation`,
`compressor.nn.rank_budget`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Control, State, StepResult
from compressor.methods.milder import RemovalMethod
from compressor.methods.patterns import Candidate, Patterns, Selection
from compressor.methods.targets import refuse_non_finite, select_matrices
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from compressor.nn.attention.parts import AttentionParts
    from compressor.surgery.low_rank.analysis import Cut
    from compressor.surgery.low_rank.matrices import MatrixSite
    from compressor.task.contract import Task

_SHOWN = 6
"""How many reasons an error lists at most."""


@dataclass(frozen=True)
class _Chosen:
    """What a step decided, before it touched the model."""

    cuts: tuple[tuple[Cut, int], ...]
    skipped: tuple[Skip, ...]
    whitened: bool
    considered: int
    """Parameters of everything that could be cut, what was left as it is included."""

    @property
    def sites(self) -> list[MatrixSite]:
        """What is cut."""
        return [cut.site for cut, _ in self.cuts]


class LowRankAttention(RemovalMethod):
    """Replace trained matrices of attention, and Linear and recurrent ones if named, by ones of low rank.

    A matrix becomes two factors; the heads of attention can also be cut so that queries and keys, or values and the
    output, meet in fewer features, which gives smaller dense matrices. Nothing is trained: a `retrain` step trains the
    factors.
    """

    summary: ClassVar[str] = "cut trained attention, Linear and recurrent matrices down to a low rank"

    method: Literal["low_rank_attention"] = "low_rank_attention"
    """The recipe word."""

    mode: Literal["projections", "heads", "products"] = "products"
    """How attention is cut. `products`: queries and keys only meet in products, and so do values and output, so each
    head's product is cut and the heads become narrower. `heads`: the same, but each head's share of each projection is
    cut by itself. `projections`: each of the four matrices becomes two factors. Attention that the task names can be
    narrowed if its code takes the width of the heads from the tensors; else `projections`."""

    energy: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Each matrix gets the smallest rank that keeps this part of its squared singular values; of the outputs' energy on
    the calibration batches with `whiten`."""

    rank: Annotated[int, Field(ge=1)] | None = None
    """Instead of `energy`: the rank of each matrix, or with `mode: heads` or `products` the features that are left of
    each head."""

    parameters: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Instead of `energy`: the part of the parameters of all chosen matrices that is left, spent where each keeps most
    energy."""

    whiten: bool = True
    """Weigh directions by how much the calibration batches use them, so that the error of the outputs is smallest and
    not that of the weights; biases take up the mean of what is lost. Needs no labels."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 16
    """With `whiten`: how many training batches are used."""

    targets: Patterns | None = None
    """Globs (or `re:` and a regular expression) on names of matrices or of modules that hold them, such as `*.linear1`
    or `rnn.weight_hh_l0`; every attention if left out. Linear and recurrent matrices are cut only if named
    here. Attention has `q_proj`, `k_proj`, `v_proj` and `out_proj`, or `query_key` and `value_output` for heads."""

    ignore: Patterns = ()
    """Globs (or `re:`) of what to leave alone though `targets` names it."""

    recurrent: Literal["faster", "smaller"] = "faster"
    """Which recurrent matrices of an nn.RNN, nn.GRU or nn.LSTM are cut: those that were measured to run
    faster (docs/results/low-rank.md), or all that have fewer parameters then, though the file may be slower."""

    compare: bool = False
    """With `whiten`: put plain factors of the same ranks beside it in the report, and carry out the rest of the recipe
    on them. It takes twice the time."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> LowRankAttention:
        if [self.energy, self.rank, self.parameters].count(None) != 2:
            raise ValueError("give one of `energy`, `rank` and `parameters`")
        if not self.whiten:
            self.refuse_options("calibration_batches", "compare", why="has no effect without `whiten`")
        return self

    def milder(self, part: float) -> LowRankAttention:
        """More energy or parameters are left; a `rank` grows by the inverse of the part."""
        if self.rank is not None:
            return self.model_copy(update={"rank": math.ceil(self.rank / max(part, 0.01))})
        name, left = ("energy", self.energy) if self.energy is not None else ("parameters", self.parameters)
        assert left is not None
        return self.model_copy(update={name: 1.0 - part * (1.0 - left)})

    def check(self, model: nn.Module) -> None:
        """Refuse a model without anything that `targets` names, attention of PyTorch's alone considered."""
        self._select(model, {})

    def check_task(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without anything that `targets` names."""
        from compressor.surgery.attention.declared_sites import check_declared

        check_declared(model, task.attention)
        self._select(model, task.attention)

    def replaces(self, model: nn.Module, task: Task) -> Mapping[str, str]:
        """Recurrent layers whose matrices are named: their factors have no units."""
        selection, sites = self._select(model, task.attention)
        chosen = [sites[name] for name in selection.names]
        return {site.module: "recurrent layer" for site in chosen if site.kind == "recurrent"}

    def apply(self, state: State, context: Context) -> StepResult:
        """Cut matrices in a copy of the model, and run it once."""
        return self._carry_out(state, context, self._choose(state, context))

    def controls(self) -> Mapping[str, Control]:
        """Plain factors of the same ranks."""
        return {"plain": self._plain} if self.compare else {}

    def _plain(self, state: State, context: Context) -> StepResult:
        from compressor.surgery.low_rank.analysis import analyse
        from compressor.surgery.low_rank.replacement import converted

        chosen = self._choose(state, context)
        model = converted(state.model, state.masks, chosen.sites).model
        plain, _ = analyse(model, chosen.sites, self.mode, [])
        cuts = tuple((cut, rank) for cut, (_, rank) in zip(plain, chosen.cuts, strict=True))
        return self._carry_out(state, context, _Chosen(cuts, chosen.skipped, False, chosen.considered))

    def _select(
        self, model: nn.Module, declared: Mapping[str, AttentionParts]
    ) -> tuple[Selection, dict[str, MatrixSite]]:
        from compressor.surgery.low_rank.matrices import find_sites

        sites = {site.name: site for site in find_sites(model, declared, self.mode)}
        candidates = [
            Candidate(site.name, "other" if site.attention is None else "attention", site.paths)
            for site in sites.values()
        ]
        selection = select_matrices(model, candidates, self.targets, self.ignore)
        able = [name for name in selection.names if sites[name].reason is None]
        unable = [Skip(name=name, reason=sites[name].reason or "") for name in selection.names if name not in able]
        if not able:
            raise _nothing([*unable, *selection.skipped])
        return Selection(tuple(able), (*selection.skipped, *unable)), sites

    def _choose(self, state: State, context: Context) -> _Chosen:
        """Decompose everything that is chosen, and give each matrix its rank."""
        from compressor.surgery.low_rank.analysis import analyse
        from compressor.surgery.low_rank.ranks import choose_ranks, rank_limit
        from compressor.surgery.low_rank.replacement import converted

        selection, matrices = self._select(state.model, context.task.attention)
        sites = [matrices[name] for name in selection.names]
        refuse_non_finite(state.model, [name for name, _ in state.model.named_parameters()])
        batches = [inputs for inputs, _ in context.first_batches(self.calibration_batches)] if self.whiten else []
        model = converted(state.model, state.masks, sites).model
        with context.progress.bar("decomposing", len(batches) + len(sites)) as bar:
            cuts, unseen = analyse(model, sites, self.mode, batches, bar)
        skipped = [*selection.skipped, *(Skip(name=name, reason=reason) for name, reason in unseen.items())]
        steps, only_faster = context.task.length, self.recurrent == "faster"
        limits = {cut.site.name: rank_limit(model, cut, steps, only_faster=only_faster) for cut in cuts}
        ranks, idle = choose_ranks(cuts, limits, rank=self.rank, energy=self.energy, parameters=self.parameters)
        skipped += [Skip(name=name, reason=reason) for name, reason in idle.items()]
        if not ranks:
            raise _nothing(skipped)
        chosen = tuple((cut, ranks[cut.site.name]) for cut in cuts if cut.site.name in ranks)
        considered = sum(cut.dense for cut in cuts if limits[cut.site.name][0] >= 1)
        return _Chosen(chosen, tuple(skipped), self.whiten, considered)

    def _carry_out(self, state: State, context: Context, chosen: _Chosen) -> StepResult:
        from compressor.surgery.low_rank.replacement import converted, cut_change, put_factors, site_size

        factored = converted(state.model, state.masks, chosen.sites)
        before = [site_size(factored.model, cut.site) for cut, _ in chosen.cuts]
        put_factors(factored, chosen.cuts, lambda: context.first_batches(1)[0][0])
        after = [site_size(factored.model, cut.site) for cut, _ in chosen.cuts]
        changes = tuple(
            cut_change(cut, rank, *sizes, whitened=chosen.whitened)
            for (cut, rank), *sizes in zip(chosen.cuts, before, after, strict=True)
        )
        context.run_once(
            factored.model,
            device=next(factored.model.parameters()).device,
            problem="the chosen matrices cannot be factored",
            hint="the model has to call the layer as PyTorch's and leave its weights alone; name it under `ignore`",
        )
        return StepResult(
            State(factored.model, factored.masks, (*state.structure, *factored.records)),
            changes,
            chosen.skipped,
            notes=self._notes(factored.dropped, chosen),
            facts=_facts(chosen),
        )

    def _notes(self, dropped: Sequence[str], chosen: _Chosen) -> tuple[str, ...]:
        notes = []
        if dropped:
            notes.append(
                f"Zeros of an earlier step are not held any more in {', '.join(f'`{name}`' for name in dropped)}: the "
                "factors of a matrix with zeros have none."
            )
        scans = [cut.site.name for cut, _ in chosen.cuts if cut.site.kind == "recurrent" and "_hh" in cut.site.local]
        if scans:
            notes.append(
                f"{', '.join(f'`{name}`' for name in scans)}: exported as an ONNX Scan, which not every phone runtime "
                "knows; a native node takes dense recurrent matrices only."
            )
        return tuple(notes)


def _nothing(skipped: Sequence[Skip]) -> MethodError:
    """What was asked for is told, not what was never meant."""
    asked = [skip for skip in skipped if "not named in `targets`" not in skip.reason] or skipped
    more = f"; and {len(asked) - _SHOWN} more" if len(asked) > _SHOWN else ""
    looked_at = "; ".join(f"{skip.name}: {skip.reason}" for skip in asked[:_SHOWN]) + more
    return MethodError(
        f"nothing is cut ({looked_at})", hint="lower `energy`, `rank` or `parameters`, or change `targets`"
    )


def _facts(chosen: _Chosen) -> dict[str, float]:
    """Parameters of everything that could be cut; energies and ranks of what was."""
    kept = [1.0 - cut.losses[rank] for cut, rank in chosen.cuts]
    saved = sum(cut.dense - rank * cut.per_rank for cut, rank in chosen.cuts)
    ranks = [rank for _, rank in chosen.cuts]
    return {
        "cut": float(len(chosen.cuts)),
        "parameters_before": float(chosen.considered),
        "parameters_after": float(chosen.considered - saved),
        "parameters_kept": 1.0 - saved / chosen.considered,
        "energy_kept_mean": sum(kept) / len(kept),
        "energy_kept_lowest": min(kept),
        "rank_lowest": float(min(ranks)),
        "rank_mean": sum(ranks) / len(ranks),
        "rank_highest": float(max(ranks)),
    }
