"""Everything psycopg 3 has, against whatever PG* of the environment names; prints a transcript that holds nothing accidental.

Run against the server and through the proxy, the two transcripts must be the same to the byte. No pids, no oids of new objects, no
times. Needs PYTHONPATH with psycopg[binary].
"""

import datetime
import decimal
import hashlib
import ipaddress
import os
import sys
import threading
import time
import uuid

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

BIG = 50 * 1024 * 1024


def say(*words):
    print(*words, flush=True)


def short(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value)
        if len(value) > 60:
            return f"bytes({len(value)}, md5 {hashlib.md5(value).hexdigest()})"
    if isinstance(value, str) and len(value) > 60:
        return f"str({len(value)}, md5 {hashlib.md5(value.encode()).hexdigest()})"
    return repr(value)


def rows(cursor):
    for row in cursor:
        say("  ", " | ".join(short(value) for value in row))


def refused(action, *arguments, **named):
    """The error, as a driver sees it."""
    try:
        action(*arguments, **named)
    except psycopg.Error as error:
        diag = error.diag
        say("  refused:", type(error).__name__, diag.sqlstate, diag.severity_nonlocalized, diag.message_primary, diag.message_detail,
            diag.message_hint, diag.statement_position, diag.constraint_name)
        if diag.sqlstate is None:
            # libpq's own words name the port.
            say("  ", str(error).replace(os.environ["PGPORT"], "PORT").strip())
    else:
        say("  not refused")


def greeting(conn):
    say("== greeting")
    for name in ("server_version", "server_encoding", "client_encoding", "is_superuser", "session_authorization", "DateStyle",
                 "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings", "in_hot_standby"):
        say("  ", name, conn.info.parameter_status(name))
    say("  ", conn.info.user, conn.info.dbname, conn.info.transaction_status.name, conn.pgconn.protocol_version)
    say("   ssl", conn.pgconn.ssl_in_use)


TYPES = [
    True, 7, -(2**31), 2**62, 10**30, 1.5, float("inf"), decimal.Decimal("123456789.000000001"), "text é \U0001f600", "", b"\x00\xff raw",
    datetime.date(2024, 2, 29), datetime.time(1, 2, 3, 4), datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.timezone.utc), datetime.timedelta(days=3, microseconds=1),
    uuid.UUID(int=42), [1, 2, None], ["a", 'b "c"', None], Jsonb({"k": [1, None, "é"]}), ipaddress.ip_address("::1"),
    ipaddress.ip_network("10.0.0.0/8"), Range(1, 9), None,
]


def types(conn):
    say("== types")
    for binary in (False, True):
        with conn.cursor(binary=binary) as cursor:
            for value in TYPES:
                placeholder = "%b" if binary and not isinstance(value, str) else "%s"
                try:
                    cursor.execute(f"SELECT {placeholder} AS v, pg_typeof({placeholder})::text", (value, value))
                    rows(cursor)
                except psycopg.Error as error:
                    say("  ", type(value).__name__, "cannot:", type(error).__name__, str(error).splitlines()[0])
                    conn.rollback()


def prepared(conn):
    say("== prepared")
    conn.execute("CREATE TEMP TABLE things (id int PRIMARY KEY, word text)")
    for n in range(12):
        # The same text again and again: prepared on the server after the threshold, forced by prepare=True.
        conn.execute("INSERT INTO things VALUES (%s, %s)", (n, f"w{n}"), prepare=n > 3)
    rows(conn.execute("SELECT statement, from_sql FROM pg_prepared_statements ORDER BY name"))
    conn.execute("ALTER TABLE things ADD extra int DEFAULT 3")
    rows(conn.execute("SELECT * FROM things WHERE id = %s", (3,), prepare=True))
    conn.execute("ALTER TABLE things DROP extra")
    refused(conn.execute, "SELECT * FROM things WHERE id = %s", (3,), prepare=True)
    conn.rollback()
    conn.execute("DEALLOCATE ALL")
    conn.commit()


def many(conn):
    say("== executemany, returning, row counts")
    conn.execute("CREATE TEMP TABLE if not exists many (n int, t text)")
    with conn.cursor() as cursor:
        cursor.executemany("INSERT INTO many VALUES (%s, %s) RETURNING n * 2", [(n, "x" * n) for n in range(5)], returning=True)
        while True:
            rows(cursor)
            if not cursor.nextset():
                break
        cursor.execute("UPDATE many SET t = t || 'y' WHERE n > 1")
        say("  ", cursor.rowcount, cursor.statusmessage)
    # Several statements in one simple query, several results.
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute("SELECT 1; SELECT 'two', 2; UPDATE many SET n = n; SELECT count(*) FROM many")
        while True:
            say("  ", cursor.statusmessage)
            if cursor.description:
                rows(cursor)
            if not cursor.nextset():
                break
    conn.commit()


def transactions(conn):
    say("== transactions")
    conn.execute("CREATE TEMP TABLE acts (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    conn.commit()
    with conn.transaction():
        conn.execute("INSERT INTO acts VALUES (1)")
        try:
            with conn.transaction("inner"):
                conn.execute("INSERT INTO acts VALUES (2)")
                say("  ", conn.info.transaction_status.name)
                conn.execute("SELECT 1/0")
        except psycopg.Error as error:
            say("  inner:", error.sqlstate, conn.info.transaction_status.name)
        with conn.transaction():
            conn.execute("INSERT INTO acts VALUES (3)")
    rows(conn.execute("SELECT n FROM acts ORDER BY n"))
    conn.commit()
    # The commit itself fails.
    conn.execute("INSERT INTO acts VALUES (1)")
    refused(conn.commit)
    say("  ", conn.info.transaction_status.name)
    conn.execute("SELECT 1")
    refused(conn.execute, "SELECT no_such_column")
    refused(conn.execute, "SELECT 1")
    say("  ", conn.info.transaction_status.name)
    conn.rollback()
    for level in psycopg.IsolationLevel:
        conn.isolation_level = level
        rows(conn.execute("SHOW transaction_isolation"))
        conn.commit()
    conn.isolation_level = None
    conn.read_only = True
    refused(conn.execute, "CREATE TABLE never (n int)")
    conn.rollback()
    conn.read_only = None


def pipeline(conn):
    say("== pipeline")
    with conn.pipeline() as line:
        cursors = [conn.execute("SELECT %s::int, repeat('p', %s::int)", (n, n * 1000)) for n in range(200)]
        line.sync()
        say("  ", hashlib.md5(repr([cursor.fetchone() for cursor in cursors]).encode()).hexdigest())
    conn.commit()
    conn.autocommit = True
    conn.execute("CREATE TEMP TABLE piped (n int PRIMARY KEY)")
    # An error in the middle: what follows up to the sync is not run, what follows the sync is.
    # At which of the calls the error is raised depends on when its answer arrives; that it is raised does not.
    def failing():
        with conn.pipeline():
            for n in (1, 1, 2):
                conn.execute("INSERT INTO piped VALUES (%s)", (n,))

    refused(failing)
    say("  ", conn.info.transaction_status.name)
    rows(conn.execute("SELECT count(*) FROM piped"))
    with conn.pipeline():
        with conn.transaction():
            conn.execute("INSERT INTO piped VALUES (10)")
            with conn.cursor() as cursor:
                cursor.executemany("INSERT INTO piped VALUES (%s)", [(n,) for n in range(20, 40)])
    rows(conn.execute("SELECT count(*), sum(n) FROM piped"))
    conn.autocommit = False


def low_level_pipeline(conn):
    """libpq's own pipeline: flush requests, several syncs, an error between them; every result in order."""
    say("== libpq pipeline")
    conn.commit()
    raw = psycopg.pq.PGconn.connect(b"application_name=raw-pipeline")
    raw.enter_pipeline_mode()
    raw.send_query_params(b"SELECT 1", None)
    raw.send_query_params(b"SELECT nothing", None)
    raw.send_query_params(b"SELECT 2", None)
    raw.pipeline_sync()
    raw.send_prepare(b"named", b"SELECT $1::int + 1")
    raw.send_describe_prepared(b"named")
    raw.send_query_prepared(b"named", [b"41"])
    raw.send_flush_request()
    raw.send_query_params(b"SELECT repeat('x', 300000)", None)
    raw.pipeline_sync()
    raw.flush()
    nones = syncs = 0
    while syncs < 2 and nones < 3:
        result = raw.get_result()
        if result is None:
            nones += 1
            continue
        nones = 0
        status = psycopg.pq.ExecStatus(result.status).name
        value = result.get_value(0, 0) if result.ntuples else None
        say("  ", status, short(value), (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"").decode())
        syncs += status == "PIPELINE_SYNC"
    raw.exit_pipeline_mode()
    raw.finish()


def copying(conn):
    say("== copy")
    conn.execute("CREATE TEMP TABLE copied (n int, t text, b bytea, d date)")
    today = datetime.date(2024, 2, 29)
    for binary in (False, True):
        conn.execute("TRUNCATE copied")
        form = "WITH (FORMAT binary)" if binary else ""
        with conn.cursor() as cursor:
            with cursor.copy(f"COPY copied FROM STDIN {form}") as copy:
                if binary:
                    copy.set_types(["int4", "text", "bytea", "date"])
                for n in range(5000):
                    copy.write_row((n, None if n % 9 == 0 else "t\t\\" * (n % 7), b"\x00" * (n % 5), today))
            say("  ", cursor.statusmessage, cursor.rowcount)
            digest = hashlib.md5()
            with cursor.copy(f"COPY (SELECT * FROM copied ORDER BY n) TO STDOUT {form}") as copy:
                for block in copy:
                    digest.update(bytes(block))
            say("  ", cursor.statusmessage, digest.hexdigest())
            with cursor.copy("COPY (SELECT n, t FROM copied ORDER BY n LIMIT 3) TO STDOUT") as copy:
                copy.set_types(["int4", "text"])
                for row in copy.rows():
                    say("  ", row)

    def broken():
        with conn.cursor().copy("COPY copied (n) FROM STDIN") as copy:
            copy.write("1\nnot a number\n")

    def given_up():
        with conn.cursor().copy("COPY copied (n) FROM STDIN") as copy:
            copy.write("1\n")
            raise ZeroDivisionError("given up by the client")

    def stopped_reading():
        with conn.cursor().copy("COPY (SELECT repeat('x', 100) FROM generate_series(1, 200000)) TO STDOUT") as copy:
            next(iter(copy))
            raise ZeroDivisionError("enough")

    conn.commit()
    refused(broken)
    conn.rollback()
    for action in (given_up, stopped_reading):
        try:
            action()
        except ZeroDivisionError as error:
            say("  ", error, conn.info.transaction_status.name)
        conn.rollback()
        rows(conn.execute("SELECT count(*) FROM copied"))
        conn.commit()


def cursors(conn):
    say("== server-side cursors")
    with conn.cursor("named", scrollable=True) as cursor:
        cursor.itersize = 300
        cursor.execute("SELECT n, md5(n::text) FROM generate_series(1, 1000) n")
        say("  ", hashlib.md5(repr(list(cursor)).encode()).hexdigest())
        cursor.scroll(10, mode="absolute")
        say("  ", cursor.fetchmany(2))
    conn.commit()
    with conn.cursor("held", withhold=True) as cursor:
        cursor.execute("SELECT n FROM generate_series(1, 10) n")
        cursor.fetchmany(3)
        conn.commit()
        say("  ", cursor.fetchmany(3))
    conn.commit()
    with conn.cursor() as cursor:
        say("  ", sum(row[0] for row in cursor.stream("SELECT n FROM generate_series(1, 5000) n")))
    conn.commit()


def large(conn):
    say("== 50 MB")
    text = "0123456789abcdef" * (BIG // 16)
    conn.execute("CREATE TEMP TABLE huge (t text, b bytea)")
    conn.execute("INSERT INTO huge VALUES (%s, %b)", (text, text.encode()))
    rows(conn.execute("SELECT md5(t), md5(b), length(t) FROM huge"))
    for binary in (False, True):
        rows(conn.execute("SELECT b FROM huge", binary=binary))
    rows(conn.execute("SELECT t FROM huge"))
    literal = psycopg.ClientCursor(conn).mogrify("SELECT length(%s)", (text,))
    with psycopg.ClientCursor(conn) as cursor:
        rows(cursor.execute(literal))
    conn.rollback()


def notices(conn):
    say("== notices and notifications")
    heard = []
    conn.add_notice_handler(lambda notice: heard.append((notice.severity_nonlocalized, notice.sqlstate, notice.message_primary)))
    conn.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
    conn.commit()
    say("  ", heard)
    conn.autocommit = True
    conn.execute("LISTEN channel")
    with psycopg.connect(autocommit=True, application_name="speaker") as other:
        for n in range(3):
            other.execute("SELECT pg_notify('channel', %s)", (f"message {n}",))
        other.execute("SELECT pg_notify('channel', repeat('n', 7999))")
    got = []
    for notify in conn.notifies(timeout=10, stop_after=4):
        got.append((notify.channel, short(notify.payload)))
    say("  ", got)
    conn.execute("UNLISTEN *")
    conn.autocommit = False


def cancelling(conn):
    say("== cancel")
    conn.autocommit = True
    # With nothing running, and the answer awaited: the next statement is not the one that is cancelled.
    for _ in range(5):
        conn.cancel_safe(timeout=10)
        rows(conn.execute("SELECT 'unharmed'"))
    timer = threading.Timer(0.3, lambda: conn.cancel_safe(timeout=10))
    timer.start()
    began = time.monotonic()
    refused(conn.execute, "SELECT pg_sleep(60)")
    timer.join()
    say("  ", "in time" if time.monotonic() - began < 5 else "too late", conn.info.transaction_status.name)
    rows(conn.execute("SELECT 'still here'"))
    conn.execute("SET statement_timeout = '100ms'")
    refused(conn.execute, "SELECT pg_sleep(60)")
    conn.execute("RESET statement_timeout")
    conn.autocommit = False


def settings(conn):
    say("== session state")
    conn.execute("SET TimeZone = 'Asia/Tokyo'")
    say("  ", conn.info.parameter_status("TimeZone"), conn.info.timezone)
    conn.execute("SET application_name = 'renamed'")
    say("  ", conn.info.parameter_status("application_name"))
    conn.execute("SET my.own = 'custom'")
    rows(conn.execute("SELECT current_setting('my.own'), current_setting('TimeZone')"))
    conn.rollback()
    say("  ", conn.info.parameter_status("TimeZone"))
    rows(conn.execute("SELECT pg_try_advisory_lock(1), pg_advisory_unlock(1)"))
    conn.commit()
    conn.autocommit = True
    conn.execute("DISCARD ALL")
    conn.autocommit = False
    options = psycopg.connect(options="-c work_mem=5MB -c my.option=given", application_name="é options", client_encoding="latin1")
    rows(options.execute("SELECT current_setting('work_mem'), current_setting('my.option'), current_setting('application_name'), 'ü'"))
    options.close()


def two_phase(conn):
    say("== objects and functions")
    conn.execute("CREATE TEMP SEQUENCE s")
    rows(conn.execute("SELECT nextval('s'), nextval('s'), currval('s')"))
    rows(conn.execute(sql.SQL("SELECT {} FROM generate_series(1, 3) AS {}").format(sql.Identifier("odd name"), sql.Identifier("odd name"))))
    conn.rollback()
    with conn.transaction():
        rows(conn.execute("SELECT lo_from_bytea(99, %b) = 99", (b"large" * 1000,)))
        rows(conn.execute("SELECT lo_get(99, 2495, 10)"))
        conn.execute("SELECT lo_unlink(99)")


def log_ins():
    say("== log-ins that fail")
    refused(psycopg.connect, password="wrong")
    refused(psycopg.connect, dbname="no such database")
    refused(psycopg.connect, options="-c no_such_setting=1")


def main():
    with psycopg.connect() as conn:
        for part in (greeting, types, prepared, many, transactions, pipeline, low_level_pipeline, copying, cursors, large, notices,
                     cancelling, settings, two_phase):
            part(conn)
            conn.rollback()
    log_ins()
    say("== end")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    os.environ.setdefault("PGCONNECT_TIMEOUT", "20")
    main()
