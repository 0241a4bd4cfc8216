import pytest
from ccop_pretrain.settings import OptimisationSettings
from ccop_pretrain.training.schedule import Schedule

from ccop_hub.errors import UserError


def test_the_papers_run_has_the_papers_length_and_learning_rate():
    schedule = Schedule.of(OptimisationSettings(), 118_287)
    assert schedule.steps == 800 * 462
    assert schedule.peak_lr == 0.3
    assert schedule.warmup_steps == 10 * 462


def test_the_learning_rate_warms_up_from_its_start_and_ends_at_zero():
    schedule = Schedule.of(OptimisationSettings(epochs=100, batch_size=10, warmup_epochs=10), 100)
    factors = [schedule.factor(step) for step in range(1001)]
    assert factors[0] == pytest.approx(1e-4)
    assert factors[:101] == sorted(factors[:101])
    assert factors[100:] == sorted(factors[100:], reverse=True)
    assert factors[50] == pytest.approx(0.5 * 0.99384, rel=1e-3)
    assert factors[500] == pytest.approx(0.5)
    assert factors[1000] == 0
    assert factors[999] > 0


def test_the_rate_is_linear_in_the_batch_and_steps_replace_epochs():
    schedule = Schedule.of(OptimisationSettings(batch_size=64, steps=7, warmup_epochs=10), 640)
    assert schedule.peak_lr == pytest.approx(0.3 / 4)
    assert schedule.steps == 7
    assert schedule.warmup_steps == 3.5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 64}, "--batch-size 63"),
        ({"batch_size": 1}, "batch norm"),
    ],
)
def test_impossible_lengths_are_named(changed, message):
    with pytest.raises(UserError, match=message):
        Schedule.of(OptimisationSettings(**changed), 63)
