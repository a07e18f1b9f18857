"""What the first signal does, what its echo does not, and what the second one does."""

from __future__ import annotations

import os
import signal

import pytest

from posttrain.pipeline.interrupt import ECHO_SECONDS, Interrupted, listening

BOTH = (signal.SIGINT, signal.SIGTERM)


def send(sign: signal.Signals) -> None:
    os.kill(os.getpid(), sign)


@pytest.mark.parametrize("sign", BOTH)
def test_outside_of_training_the_run_ends_at_once(sign: signal.Signals) -> None:
    with pytest.raises(Interrupted) as stop, listening():
        send(sign)
    assert stop.value.signum == sign


@pytest.mark.parametrize("sign", BOTH)
def test_a_step_is_finished_unless_it_is_told_again(
    sign: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening() as signals:
        signals.training = True
        send(sign)
        send(signal.SIGTERM)  # a launcher passes on what its processes got already
        assert signals.received == sign
        assert capsys.readouterr().err.count("saved first") == 1
        signals.first -= ECHO_SECONDS
        with pytest.raises(Interrupted):
            send(sign)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(sign) for sign in BOTH]
    with listening() as signals:
        assert signal.getsignal(signal.SIGTERM) == signals.handle
    assert [signal.getsignal(sign) for sign in BOTH] == before
