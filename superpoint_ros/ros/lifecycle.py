"""Lifecycle, parameters and diagnostics shared by the nodes."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import ParameterEvent, SetParametersResult
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.task import Future

from superpoint_ros.ros import diagnostics, parameters
from superpoint_ros.ros.diagnostics import printable


class ManagedNode(LifecycleNode):
    """A lifecycle node. Subclasses define what its transitions do.

    The publishers, subscriptions, services and timers that `configure` creates are destroyed after `cleanup`, and those
    that `activate` creates after `deactivate`.

    A transition that raises fails: the reason is logged and shown on /diagnostics, and the node keeps its state, so
    that it can be tried again with other parameters. Parameters come from configuration dataclasses. Live ones may
    change at any time, the others only while the node is unconfigured. If `autostart` is true, the node configures and
    activates itself as soon as an executor runs it, `run` or any other; this parameter cannot change.
    """

    def __init__(self, name: str, configurations: Sequence[type]) -> None:
        super().__init__(name)
        self.configured = self.active = False
        self._failure = ''
        self._created: dict[Callable[[], None], dict[Any, Callable[[Any], object]]] = {}
        self._errors, self._last_error = 0, ''
        self._configurations = configurations
        self.ended: Future[int] = Future()
        """Done when the node is to end; the result is the exit code: 0 after a signal, 1 if it cannot start itself."""
        parameters.declare(self, configurations, read_only=('autostart',))
        if hasattr(self, 'add_pre_set_parameters_callback'):  # not on Humble
            self.add_pre_set_parameters_callback(self._accept_integers)
        self.add_on_set_parameters_callback(self._check)
        if hasattr(self, 'add_post_set_parameters_callback'):
            self.add_post_set_parameters_callback(lambda _: self._apply())
        else:  # Humble
            self.create_subscription(ParameterEvent, '/parameter_events', self._take_parameter_event, 10)
        diagnostics.report_every_second(self, self._report)
        self._start_timer = None
        if self.get_parameter('autostart').value:
            self._start_timer = self.create_timer(0.0, self._start, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def configure(self) -> None:
        """Read parameters and acquire resources; if it raises, cleanup is called."""

    def activate(self) -> None:
        """Start working; if it raises, deactivate is called."""

    def deactivate(self) -> None:
        """Stop working, and return when all work has stopped."""

    def cleanup(self) -> None:
        """Release what configure acquired, which may be only a part."""

    def apply_parameters(self) -> None:
        """Use the new values of live parameters; called after they changed while the node is configured."""

    def report(self) -> list[DiagnosticStatus]:
        """Statuses for /diagnostics while the node is active."""
        return []

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.configured = self._acquire(self.configure, undo=self.cleanup)
        return super().on_configure(state) if self.configured else TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = self._acquire(self.activate, undo=self.deactivate)
        return super().on_activate(state) if self.active else TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = not self._undo(self.deactivate)
        return TransitionCallbackReturn.FAILURE if self.active else super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.configured = not self._undo(self.cleanup)
        return TransitionCallbackReturn.FAILURE if self.configured else super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_shutdown(state)

    def destroy_node(self) -> None:
        """Stop working and release everything."""
        self._release()
        super().destroy_node()

    @property
    def running(self) -> bool:
        """Whether neither a signal nor a failed start ends the node, and ROS has not been shut down."""
        return self.context.ok() and not self.ended.done()

    def log_unexpected(self, error: Exception) -> None:
        """Count and log an error that nothing expects; the node continues."""
        if not self.running:
            return
        self._errors += 1
        self._last_error = printable(repr(error))
        trace = printable(''.join(traceback.format_exception(error)), 5000)
        self.get_logger().error(f'unexpected error, continuing: {trace}', throttle_duration_sec=2)

    def _start(self) -> None:
        assert self._start_timer
        self._start_timer.cancel()
        started = self.trigger_configure() == TransitionCallbackReturn.SUCCESS
        started = started and self.trigger_activate() == TransitionCallbackReturn.SUCCESS
        if self.running and not started:
            self.ended.set_result(1)

    def _release(self) -> None:
        if self.active:
            self.active = not self._undo(self.deactivate)
        if self.configured and not self.active:  # otherwise its work still uses what cleanup releases
            self.configured = not self._undo(self.cleanup)

    def _acquire(self, action: Callable[[], None], undo: Callable[[], None]) -> bool:
        """Run a transition, and note what it creates; if it fails, nothing of that remains."""
        before = self._entities()
        succeeded = self._try(action)
        created = {entity: destroy for entity, destroy in self._entities().items() if entity not in before}
        self._created[undo] = created
        if not succeeded:
            undo()
            self._destroy_created(undo)
        return succeeded

    def _undo(self, action: Callable[[], None]) -> bool:
        """Run the transition back, and destroy what the other one created."""
        succeeded = self._try(action)
        if succeeded:
            self._destroy_created(action)
        return succeeded

    def _destroy_created(self, undo: Callable[[], None]) -> None:
        for entity, destroy in self._created.pop(undo, {}).items():
            destroy(entity)

    def _entities(self) -> dict[Any, Callable[[Any], object]]:
        """What the node has created, with the method that destroys it."""
        return {
            **dict.fromkeys(self.publishers, self.destroy_publisher),
            **dict.fromkeys(self.subscriptions, self.destroy_subscription),
            **dict.fromkeys(self.services, self.destroy_service),
            **dict.fromkeys(self.timers, self.destroy_timer),
        }

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it silently
            expected = isinstance(error, (ValueError, OSError, ImportError))
            self._failure = printable(f'cannot {action.__name__}: {error if expected else repr(error)}')
            if self.running:  # otherwise a signal interrupted the action, and nothing is wrong
                trace = '' if expected else '\n' + printable(traceback.format_exc(), 5000)
                self.get_logger().error(self._failure + trace)
            return False
        self._failure = ''
        return True

    def _accept_integers(self, changes: list[Parameter[Any]]) -> list[Parameter[Any]]:
        return parameters.with_floats(changes, self._configurations)

    def _check(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        return parameters.check_change(self, changes, self._configurations, self.configured)

    def _apply(self) -> None:
        if self.configured:
            self.apply_parameters()

    def _take_parameter_event(self, event: ParameterEvent) -> None:
        if event.node == self.get_fully_qualified_name():
            self._apply()

    def _report(self) -> list[DiagnosticStatus]:
        name = self.get_name()
        if self.active and not self._failure:
            statuses = self.report()
        else:
            level = DiagnosticStatus.ERROR if self._failure else DiagnosticStatus.STALE
            message = self._failure or ('inactive' if self.configured else 'not configured')
            statuses = [diagnostics.status(level, name, message, {})]
        if self._errors:
            message = f'{self._errors} unexpected errors; the last: {self._last_error}'
            statuses.append(diagnostics.status(DiagnosticStatus.WARN, f'{name}: errors', message, {}))
        return statuses
