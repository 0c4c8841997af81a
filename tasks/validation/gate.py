"""What must hold: figures become checks, and failed checks an error."""

from typing import TYPE_CHECKING, Any

from trainyard.tasks.artifacts.products import Champion
from trainyard.tasks.errors import ArtifactDamagedError, ValidationFailedError
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.parity import Comparison
from trainyard.tasks.validation.report import (
    ChampionFigure,
    Check,
    Footprint,
    OutputParity,
    QualityFigure,
    Tolerance,
    ValidationReport,
)

if TYPE_CHECKING:
    import numpy.typing as npt

_MOST_NAMED = 10


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
            expected="no NaN and no infinity in either runtime",
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


def provider_check(footprint: Footprint) -> Check:
    """The provider that was asked for did run nodes, whatever the session says."""
    name, nodes = footprint.provider, footprint.nodes
    total = sum(nodes.values())
    others = ", ".join(f"{count} in {other}" for other, count in nodes.items() if other != name)
    return Check(
        name=f"{name}: runs nodes",
        passed=nodes.get(name, 0) > 0,
        expected=f"nodes of the graph run in {name}",
        found=f"{nodes.get(name, 0)} of {total} do" + (f", {others}" if others else ""),
    )


def champion_checks(figures: list[ChampionFigure], champion: Champion | None, settings: OrtValidation) -> list[Check]:
    """Not worse than the registered champion by more than the margin."""
    margin = settings.champion_margin
    if champion is None or margin is None:
        return []
    if not figures:
        return [
            Check(
                name=f"champion version {champion.version}",
                passed=False,
                expected=f"metrics at most {margin:g} below the champion's",
                found="not compared: the run left no labelled samples, or the champion does not take them",
            )
        ]
    return [
        Check(
            name=f"champion version {figure.version}: {figure.metric}",
            passed=figure.challenger >= figure.champion - margin,
            expected=f"at most {margin:g} below the champion's on the same samples",
            found=f"{figure.challenger:.4f}, champion {figure.champion:.4f}, {figure.num_samples:,} samples",
        )
        for figure in figures
    ]


def _parity_found(parity: OutputParity) -> str:
    worst = "" if parity.worst_sample is None else f" (sample {parity.worst_sample})"
    found = f"largest difference {parity.max_abs_error:.3g}{worst} over {parity.num_samples:,} samples"
    if parity.num_beyond_tolerance:
        found += f"; {parity.num_beyond_tolerance:,} values beyond, atol {parity.atol_needed:.2g} would be needed"
    return found


def accuracy(comparison: Comparison, labels: "npt.NDArray[Any]", provider: str) -> QualityFigure | None:
    """Accuracy in both runtimes, or None where the model is no classifier."""
    if comparison.classes is None:
        return None
    expected = labels[comparison.positions]
    torch, onnxruntime = (float((classes == expected).mean()) for classes in comparison.classes)
    return QualityFigure(
        provider=provider,
        metric="accuracy",
        num_samples=len(expected),
        torch=torch,
        onnxruntime=onnxruntime,
        difference=onnxruntime - torch,
    )


def quality_checks(figures: list[QualityFigure], settings: OrtValidation) -> list[Check]:
    """One check a bound of ``min_metrics`` and provider; a bound that nothing could be measured for fails."""
    checks = []
    for metric, bound in settings.min_metrics.items():
        measured = [figure for figure in figures if figure.metric == metric]
        checks += [
            Check(
                name=f"{figure.provider}: {metric}",
                passed=figure.onnxruntime >= bound,
                expected=f"at least {bound:g}",
                found=f"{figure.onnxruntime:.4f} (torch {figure.torch:.4f}), {figure.num_samples:,} samples",
            )
            for figure in measured
        ]
        if not measured:
            found = "not measured: the run left no labelled samples, or the model is no classifier"
            checks.append(Check(name=metric, passed=False, expected=f"at least {bound:g}", found=found))
    return checks


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
