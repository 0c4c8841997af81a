"""What must hold: figures become checks, and failed checks an error."""

from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.parity import Comparison
from trainyard.tasks.validation.report import Check, OutputParity, QualityFigure, ValidationReport

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


def parity_checks(parity: OutputParity, settings: OrtValidation) -> list[Check]:
    """Finite, within the tolerance, and (classifiers) the same labels."""
    where = f"{parity.provider}, batch {parity.batch_size}, {parity.output}"
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
            expected=f"abs(onnx - torch) <= {settings.atol:g} + {settings.rtol:g} * abs(torch)",
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
