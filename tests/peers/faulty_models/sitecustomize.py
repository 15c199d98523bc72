"""Makes models fail in judging processes: the file that FAULTY_MODELS names says how, read at every judgement.

``{"2": "crash"}``: version 2 of any bundle ends its process by SIGSEGV; ``hang``, ``nan`` and ``disagree`` as they say.
``slow-to-load`` takes longer to load than to judge is allowed.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def _install():
    from models.judge import Judge

    judge, forget = Judge.judge, Judge.forget

    def fault_of(self):
        try:
            faults = json.loads(Path(os.environ["FAULTY_MODELS"]).read_text())
        except (OSError, ValueError):
            return None
        return faults.get(str(self.card.version))

    def live(self):
        forget(self)
        self.is_live = True  # its golden decisions are behind it
        if fault_of(self) == "slow-to-load":
            time.sleep(3.5)

    def faulty(self, given):
        said = judge(self, given)
        if not hasattr(self, "is_live"):
            return said
        fault = fault_of(self)
        if fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "hang":
            time.sleep(3600)
        if fault == "nan":
            return said._replace(score=float("nan"), label="normal")
        if fault == "disagree":
            return said._replace(score=2.0, label="anomaly")
        return said

    Judge.judge, Judge.forget = faulty, live


if "FAULTY_MODELS" in os.environ and any("_process" in word for word in sys.orig_argv):
    _install()
