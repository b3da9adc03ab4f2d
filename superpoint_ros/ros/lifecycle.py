"""How our nodes start, change state, take parameters, report and end."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from superpoint_ros.ros import diagnostics, parameters


class ManagedNode(LifecycleNode):
    """A lifecycle node of which a subclass says what each transition does.

    A transition that raises fails with the reason, in one line on the log and on /diagnostics; the node stays in the
    state that it was in, so that other parameters can be tried. Parameters come from configuration dataclasses; those
    that are not live can change only while the node is not configured.

    Args:
        name: of the node.
        configurations: dataclasses made with config.option; one has a field `autostart`, which cannot change at all.
    """

    def __init__(self, name: str, configurations: Sequence[type]) -> None:
        super().__init__(name)
        self.configured = self.active = False
        self._failure = ''
        self._configurations = configurations
        parameters.declare(self, configurations, read_only=('autostart',))
        self.add_on_set_parameters_callback(self._set)
        diagnostics.report_every_second(self, self._report)

    def configure(self) -> None:
        """Read parameters, take what is needed; if it raises, cleanup is called."""

    def activate(self) -> None:
        """Start the work; if it raises, deactivate is called."""

    def deactivate(self) -> None:
        """Stop the work; when this returns, it has stopped."""

    def cleanup(self) -> None:
        """Release what configure took, also if it took only a part."""

    def reconfigure(self, options: dict[str, Any]) -> None:
        """Take new values of live options, which have been checked; called while the node is configured."""

    def report(self) -> list[DiagnosticStatus]:
        """What to tell on /diagnostics while the node is active."""
        return []

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        self.configured = self._try(self.configure, undo=self.cleanup)
        return _returned(self.configured)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        self.active = self._try(self.activate, undo=self.deactivate)
        return _returned(self.active)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        self.active = not self._try(self.deactivate)
        return _returned(not self.active)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        self.configured = not self._try(self.cleanup)
        return _returned(not self.configured)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stop the work, release everything."""
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
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it without a word
            expected = isinstance(error, (ValueError, OSError, ImportError))
            self._failure = f'cannot {action.__name__}: {error if expected else repr(error)}'
            self.get_logger().error(self._failure if expected else f'{self._failure}\n{traceback.format_exc()}')
            if undo:
                undo()
            return False
        self._failure = ''
        return True

    def _set(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        result, live = parameters.change(self, changes, self._configurations, self.configured)
        if live and self.configured:
            self.reconfigure(live)
        return result

    def _report(self) -> list[DiagnosticStatus]:
        if self.active:
            return self.report()
        level = DiagnosticStatus.ERROR if self._failure else DiagnosticStatus.STALE
        message = self._failure or ('inactive' if self.configured else 'not configured')
        return [diagnostics.status(level, self.get_name(), message, {})]


def run(make: Callable[[], ManagedNode], args: list[str] | None = None) -> int:
    """Run a node until SIGINT or SIGTERM; if its parameter `autostart` is true, it is configured and activated.

    Returns:
        The exit code: 0, or 1 if the parameters that were given are wrong.
    """
    # rclpy's handler ends the spinning; Python's own would raise KeyboardInterrupt anywhere, in the teardown too.
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
            if node.context.ok():  # else a callback was using ROS while the signal ended it
                raise
        finally:
            logging.getLogger('superpoint_ros').removeHandler(handler)
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
        # Python restores any handler but this one when it ends, and a second Ctrl-C would then kill it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0


def _returned(success: bool) -> TransitionCallbackReturn:
    return TransitionCallbackReturn.SUCCESS if success else TransitionCallbackReturn.FAILURE


class _ToRos(logging.Handler):
    """Passes what the core logs on to a node's log."""

    def __init__(self, node: ManagedNode) -> None:
        super().__init__(logging.INFO)
        self._log = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        log = self._log.info if record.levelno < logging.WARNING else self._log.warning
        log(record.getMessage())
