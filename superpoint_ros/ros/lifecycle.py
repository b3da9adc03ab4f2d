"""Lifecycle, parameters and diagnostics shared by the nodes."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import ParameterEvent, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from superpoint_ros.ros import diagnostics, parameters


class ManagedNode(LifecycleNode):
    """A lifecycle node. Subclasses define what its transitions do.

    A transition that raises fails: the reason is logged and shown on /diagnostics, and the node keeps its state, so
    that it can be tried again with other parameters. Parameters come from configuration dataclasses. Live ones may
    change at any time, the others only while the node is unconfigured.

    Args:
        name: of the node.
        configurations: dataclasses made with config.option; one has a field `autostart`, which cannot change.
    """

    def __init__(self, name: str, configurations: Sequence[type]) -> None:
        super().__init__(name)
        self.configured = self.active = False
        self._failure = ''
        self._configurations = configurations
        parameters.declare(self, configurations, read_only=('autostart',))
        self.add_on_set_parameters_callback(self._check)
        if hasattr(self, 'add_post_set_parameters_callback'):
            self.add_post_set_parameters_callback(lambda _: self._apply())
        else:  # Humble
            self.create_subscription(ParameterEvent, '/parameter_events', self._take_parameter_event, 10)
        diagnostics.report_every_second(self, self._report)

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
        self.configured = self._try(self.configure, undo=self.cleanup)
        return super().on_configure(state) if self.configured else TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = self._try(self.activate, undo=self.deactivate)
        return super().on_activate(state) if self.active else TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = not self._try(self.deactivate)
        return TransitionCallbackReturn.FAILURE if self.active else super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.configured = not self._try(self.cleanup)
        return TransitionCallbackReturn.FAILURE if self.configured else super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_shutdown(state)

    def destroy_node(self) -> None:
        """Stop working and release everything."""
        self._release()
        super().destroy_node()

    def _release(self) -> None:
        if self.active:
            self.active = not self._try(self.deactivate)
        if self.configured:
            self.configured = not self._try(self.cleanup)

    def _try(self, action: Callable[[], None], undo: Callable[[], None] | None = None) -> bool:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it silently
            expected = isinstance(error, (ValueError, OSError, ImportError))
            self._failure = f'cannot {action.__name__}: {error if expected else repr(error)}'
            self.get_logger().error(self._failure if expected else f'{self._failure}\n{traceback.format_exc()}')
            if undo:
                undo()
            return False
        self._failure = ''
        return True

    def _check(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        return parameters.check_change(self, changes, self._configurations, self.configured)

    def _apply(self) -> None:
        if self.configured:
            self.apply_parameters()

    def _take_parameter_event(self, event: ParameterEvent) -> None:
        if event.node == self.get_fully_qualified_name():
            self._apply()

    def _report(self) -> list[DiagnosticStatus]:
        if self.active:
            return self.report()
        level = DiagnosticStatus.ERROR if self._failure else DiagnosticStatus.STALE
        message = self._failure or ('inactive' if self.configured else 'not configured')
        return [diagnostics.status(level, self.get_name(), message, {})]


def run(make: Callable[[], ManagedNode], args: list[str] | None = None) -> int:
    """Run a node until SIGINT or SIGTERM. Configures and activates it first if its parameter `autostart` is true.

    Returns:
        The exit code: 0, or 1 if a given parameter is wrong.
    """
    # rclpy's handler ends the executor; Python's own would raise KeyboardInterrupt anywhere, even during teardown.
    signal.signal(signal.SIGINT, lambda *_: None)
    rclpy.init(args=args)
    try:
        try:
            node = make()
        except (ParameterException, ValueError) as error:
            rclpy.logging.get_logger('superpoint_ros').fatal(str(error))
            return 1
        handler = _ToRos(node)
        logging.getLogger('superpoint_ros').addHandler(handler)
        try:
            started = node.get_parameter('autostart').value and node.trigger_configure()
            if started == TransitionCallbackReturn.SUCCESS:
                node.trigger_activate()
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            executor.spin()
        except ExternalShutdownException:
            pass
        except Exception:
            if node.context.ok():  # otherwise a callback used ROS after the signal
                raise
        finally:
            logging.getLogger('superpoint_ros').removeHandler(handler)
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
        # On exit Python restores the default unless it is ignored, and a second Ctrl-C would end in a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0


class _ToRos(logging.Handler):
    """Forwards the log of the core to the log of a node."""

    def __init__(self, node: ManagedNode) -> None:
        super().__init__(logging.INFO)
        self._log = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        log = self._log.info if record.levelno < logging.WARNING else self._log.warning
        log(record.getMessage())
