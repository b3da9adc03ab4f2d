"""Reads the messages of damaged .db3 files, which are SQLite databases with rosbag2's schema."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
from rosbags.rosbag2.metadata import parse_qos

from superpoint_ros.bags.compression import MAX_RECORD
from superpoint_ros.bags.records import MAX_DAMAGE, Messages, Topic

SQLITE = b'SQLite format 3\0'
"""First bytes of the file."""


def messages(path: Path, damage: list[str]) -> Messages:
    """Yield the messages of a .db3 file in the order in which they were written.

    Raises:
        apsw.Error, ValueError: the file is not a database with the tables of a bag.
    """
    query = 'SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id LIMIT 1'
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with closing(apsw.Connection(f'{path.absolute().as_uri()}?immutable=1', flags)) as database:
        database.pragma('writable_schema', True)  # SQLite then opens a file that is shorter than its header says
        limit_database(database, path.stat().st_size)
        topics = _topics(database)
        cut = path.stat().st_size % database.pragma('page_size') != 0
        last, missing = 0, 0
        previous: tuple[Topic, int, bytes] | None = None
        while missing < MAX_DAMAGE:
            try:
                row = database.execute(query, (last,)).fetchone()
                if row is None:
                    break
                number, topic, stamp, data = row
                # SQLite reads pages beyond the end of the file as zeros.
                if not (last < number and topic in topics and 0 <= stamp < 1 << 63 and isinstance(data, bytes)):
                    raise ValueError('a page is lost')
            except (apsw.Error, TypeError, ValueError) as error:
                if not missing:
                    damage.append(f'{path.name}: messages after number {last} cannot be read: {error}')
                last, missing = last + 1, missing + 1
                continue
            if previous:
                yield previous
            previous, last, missing = (topics[topic], stamp, data), number, 0
        if previous and not cut:  # else the last message may end in the page that is cut, and so in zeros
            yield previous


def limit_database(database: apsw.Connection, size: int) -> None:
    """Limit the memory for a value and the work for a file of `size` bytes, and refuse computed tables and columns.

    Raises:
        ValueError: a table of a bag is a view, a virtual table, or has generated columns.
    """
    database.limit(apsw.SQLITE_LIMIT_LENGTH, MAX_RECORD)
    database.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    millions = iter(range(100 + size // 10_000))

    def count() -> bool:
        if next(millions, None) is None:
            raise ValueError('reading takes too many steps')
        return False

    database.set_progress_handler(count, 1_000_000)
    for table in ('schema', 'topics', 'message_definitions', 'messages'):
        query = "SELECT rootpage > 0 AND type = 'table' FROM sqlite_master WHERE lower(name) = ?"
        stored = all(row[0] for row in database.execute(query, (table,)))
        if not stored or any(row[6] for row in database.execute(f'PRAGMA table_xinfo({table})')):
            raise ValueError(f'{table} is not a plain table')


def _topics(database: apsw.Connection) -> dict[int, Topic]:
    columns = [row[1] for row in database.execute('PRAGMA table_info(topics)')]
    qos = 'offered_qos_profiles' if 'offered_qos_profiles' in columns else "''"
    definitions: dict[str, str] = {}
    if database.execute('PRAGMA table_info(message_definitions)').fetchall():
        query = "SELECT topic_type, encoded_message_definition FROM message_definitions WHERE encoding = 'ros2msg'"
        definitions = dict(database.execute(query))
    return {
        number: Topic(name, msgtype, definitions.get(msgtype, ''), tuple(parse_qos(profiles)))
        for number, name, msgtype, profiles in database.execute(f'SELECT id, name, type, {qos} FROM topics')
    }
