"""Layer 1, by hand: *you* name the next greenlet.

Why: before a hub chooses for you, see what there is to choose. One idea a file:

- `coroutine`: a greenlet with a name, a state, and errors that tell the cure.
- `relay` and `generators`: round robin, ping-pong and a pipeline, twice with the same signatures; by switches and by
  `yield`.
- `iterate`: a function that pushes, turned into an iterator that is pulled.
- `stacks`: where a suspended greenlet stands, and whom it returns to.
- `stepper`: a program stopped at each switch. `switches` says what one was, out of what `passed` reads in the source;
  `steps` and `steps_html` show it, and `prints` has the program print where it is stepped.
- `limitation`: what all this can't do, measured. The hub is the answer to it.

Knows greenlet, the standard library and our errors. Must not know the hub, nor be known by it.
"""

from greenswitch.core import generators, relay
from greenswitch.core.coroutine import Coroutine, State, current, hand_back
from greenswitch.core.iterate import Iteration, emit, iterate
from greenswitch.core.limitation import (
    BlockingAddsUp,
    FrozenEcho,
    SwitchingCost,
    blocking_adds_up,
    frozen_echo,
    switching_cost,
)
from greenswitch.core.stacks import ContextStack, Frame, context_stack, frames, parents
from greenswitch.core.stepper import Stepper
from greenswitch.core.steps import Step, Steps

__all__ = [
    "BlockingAddsUp",
    "ContextStack",
    "Coroutine",
    "Frame",
    "FrozenEcho",
    "Iteration",
    "State",
    "Step",
    "Stepper",
    "Steps",
    "SwitchingCost",
    "blocking_adds_up",
    "context_stack",
    "current",
    "emit",
    "frames",
    "frozen_echo",
    "generators",
    "hand_back",
    "iterate",
    "parents",
    "relay",
    "switching_cost",
]
