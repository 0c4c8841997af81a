"""``trainyard doctor``: can this machine train, and if not, why not and what to do."""

from trainyard.deployments.doctor.check import Check, Status
from trainyard.deployments.doctor.examine import check_machine
from trainyard.deployments.doctor.report import render, run_doctor

__all__ = ["Check", "Status", "check_machine", "render", "run_doctor"]
