"""What must hold: figures become checks, and failed checks an error."""

from trainyard.tasks.artifacts.products import Champion
from trainyard.tasks.errors import ArtifactDamagedError, ValidationFailedError
from trainyard.tasks.specs.quality import LOWER_IS_BETTER, is_worse, problem_of
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.figures import ChampionFigure, Check, Footprint, OutputParity, QualityFigure, Tolerance
from trainyard.tasks.validation.quality import Goal
from trainyard.tasks.validation.report import ValidationReport

_MOST_NAMED = 10
CPU_PROVIDER = "CPUExecutionProvider"
"""Takes every node itself: there is nothing below it to fall back to."""


def ran(where: str) -> Check:
    """The check that a provider ran the model at all."""
    return Check(name=f"{where}: runs", passed=True, expected=_RUNS, found="it does")


def did_not_run(where: str, error: ValidationFailedError) -> Check:
    """The same, failed."""
    return Check(name=f"{where}: runs", passed=False, expected=_RUNS, found=str(error))


_RUNS = "both runtimes run the model, with outputs of the same shape"


def parity_checks(parity: OutputParity, tolerance: Tolerance, settings: OrtValidation) -> list[Check]:
    """Finite, within the tolerance, and (classifiers) the same labels."""
    where = f"{parity.where}, {parity.output}"
    checks = [
        Check(
            name=f"{where}: finite",
            passed=parity.num_non_finite == 0,
            expected="no NaN in either runtime, and infinities only where both have the same",
            found=f"{parity.num_non_finite:,} such values",
        ),
        Check(
            name=f"{where}: parity",
            passed=parity.num_beyond_tolerance == 0,
            expected=f"abs(onnx - torch) <= {tolerance.atol:g} + {tolerance.rtol:g} * abs(torch)",
            found=_parity_found(parity),
        ),
    ]
    if parity.agreement is not None:
        checks.append(
            Check(
                name=f"{where}: same class",
                passed=parity.agreement >= settings.min_agreement,
                expected=f"on at least {settings.min_agreement:.2%} of samples",
                found=f"on {parity.agreement:.2%} of {parity.num_samples:,} samples",
            )
        )
    return checks


def bundle_check(error: ArtifactDamagedError | None) -> Check:
    """The bundle's files are those that were exported."""
    return Check(
        name="bundle: whole",
        passed=error is None,
        expected="every file of the bundle, external data too, has the digest that its description names",
        found="it has" if error is None else str(error),
    )


def provider_check(footprint: Footprint, settings: OrtValidation) -> Check:
    """The provider that was asked for did run the graph, or most of it, whatever the session says."""
    name, nodes = footprint.provider, footprint.nodes
    others = ", ".join(f"{count} in {other}" for other, count in nodes.items() if other != name)
    found = f"{nodes.get(name, 0)} of {sum(nodes.values())} do ({footprint.node_share:.0%})"
    return Check(
        name=f"{name}: runs nodes",
        passed=footprint.node_share >= _least_share(name, settings),
        expected=_share_expected(name, settings),
        found=found + (f", {others}" if others else ""),
    )


def provider_unproven(provider: str, error: ValidationFailedError, settings: OrtValidation) -> Check:
    """The same, where nothing could be measured: what is not proven fails."""
    return Check(
        name=f"{provider}: runs nodes",
        passed=False,
        expected=_share_expected(provider, settings),
        found=f"not measured: {error}",
    )


def _least_share(provider: str, settings: OrtValidation) -> float:
    return 1.0 if provider == CPU_PROVIDER else settings.min_node_share


def _share_expected(provider: str, settings: OrtValidation) -> str:
    return f"at least {_least_share(provider, settings):.0%} of the graph's nodes run in {provider}"


def champion_checks(
    figures: list[ChampionFigure], champion: Champion | None, settings: OrtValidation, goal: Goal, note: str = ""
) -> list[Check]:
    """Not worse than the registered champion by more than the margin, in each metric that decides.

    Args:
        figures: The metrics of both models.
        champion: The registered version, where there is one.
        settings: The margin.
        goal: What was measured, or why nothing was.
        note: Why the champion could not be loaded.
    """
    margin = settings.champion_margin
    if champion is None or margin is None:
        return []
    where = f"champion version {champion.version}"
    if not figures or goal.problem is None:
        reason = note or goal.note or "the champion does not take these samples, or does not answer them in this way"
        return [
            Check(
                name=where,
                passed=False,
                expected=f"metrics at most {margin:g} worse than the champion's",
                found=f"not compared: {reason}",
            )
        ]
    found = {figure.metric: figure for figure in figures}
    return [
        _champion_check(where, metric, found.get(metric), margin) for metric in settings.compared_metrics(goal.problem)
    ]


def _champion_check(where: str, metric: str, figure: ChampionFigure | None, margin: float) -> Check:
    side = "above" if metric in LOWER_IS_BETTER else "below"
    name, expected = f"{where}: {metric}", f"at most {margin:g} {side} the champion's on the same samples"
    if figure is None:
        return Check(name=name, passed=False, expected=expected, found="not measured of both")
    return Check(
        name=name,
        passed=not is_worse(metric, figure.challenger, figure.champion, margin),
        expected=expected,
        found=f"{figure.challenger:.4f}, champion {figure.champion:.4f}, {figure.num_samples:,} samples",
    )


def _parity_found(parity: OutputParity) -> str:
    worst = "" if parity.worst_sample is None else f" (sample {parity.worst_sample})"
    found = f"largest difference {parity.max_abs_error:.3g}{worst} over {parity.num_samples:,} samples"
    if parity.num_beyond_tolerance:
        found += f"; {parity.num_beyond_tolerance:,} values beyond, atol {parity.atol_needed:.2g} would be needed"
    return found


def quality_checks(figures: list[QualityFigure], settings: OrtValidation, note: str) -> list[Check]:
    """One check a bound and provider; a bound that nothing could be measured for fails.

    Args:
        figures: What was measured.
        settings: The bounds.
        note: Why nothing was.
    """
    bounds = {**settings.min_metrics, **settings.max_metrics}
    checks = []
    for metric, bound in bounds.items():
        expected = f"at {'most' if metric in LOWER_IS_BETTER else 'least'} {bound:g}"
        measured = [figure for figure in figures if figure.metric == metric]
        checks += [
            Check(
                name=f"{figure.provider}: {metric}",
                passed=not is_worse(metric, figure.onnxruntime, bound),
                expected=expected,
                found=f"{figure.onnxruntime:.4f} (torch {figure.torch:.4f}), {figure.num_samples:,} samples",
            )
            for figure in measured
        ]
        if not measured:
            found = f"not measured: {_why_not(metric, figures, note)}"
            checks.append(Check(name=metric, passed=False, expected=expected, found=found))
    return checks


def _why_not(metric: str, figures: list[QualityFigure], note: str) -> str:
    if not figures:
        return note or "a runtime failed, or gave NaN or infinities"
    measured = ", ".join(dict.fromkeys(figure.metric for figure in figures))
    if problem_of(metric) != problem_of(figures[0].metric):
        return f"it is for {problem_of(metric)}; by its labels this model was measured by {measured}"
    return f"too few classes or samples for it; measured: {measured}"


def failure_message(report: ValidationReport, report_uri: str) -> str:
    """Which checks failed, with figures, and where the whole report is."""
    failures = report.failures
    named = [f"  - {c.name}: expected {c.expected}; found {c.found}" for c in failures[:_MOST_NAMED]]
    if len(failures) > _MOST_NAMED:
        named.append(f"  - and {len(failures) - _MOST_NAMED} more")
    return (
        f"The ONNX model did not pass validation, so it is not registered: {len(failures)} of "
        f"{len(report.checks)} checks failed.\n" + "\n".join(named) + f"\nFull report: {report_uri}"
    )
