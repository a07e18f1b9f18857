"""Libraries that talk while they load are told not to, and none of them calls home."""

from __future__ import annotations

import logging
import os
import warnings


def quiet() -> None:
    """Leave the terminal to the run's own lines; must come before the libraries are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("bitsandbytes", "torch.distributed", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # DeepSpeed sets its level when it is imported, and writes to stdout; a filter stays
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    if os.environ.get("RANK", "0") != "0":  # the first process warns for all of them
        warnings.simplefilter("ignore")


def quiet_bars() -> None:
    """Switch off the progress bars that libraries draw beside ours."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
