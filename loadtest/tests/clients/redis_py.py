"""redis-py through the proxy: what an application uses. Prints 'all passed' or the first failure. Argument: the port."""

import sys
import threading

import redis

port = int(sys.argv[1])


def client(**options):
    return redis.Redis(host="127.0.0.1", port=port, socket_timeout=20, **options)


def plain(protocol):
    r = client(decode_responses=True, protocol=protocol)
    r.flushdb()
    assert r.set("k", "väl") and r.get("k") == "väl"
    assert r.set("k", "x", nx=True) is None
    assert r.mset({"a": 1, "b": 2}) and r.mget("a", "b", "none") == ["1", "2", None]
    assert r.incrbyfloat("f", 1.5) == 1.5
    assert r.hset("h", mapping={"x": "1", "y": "2"}) == 2 and r.hgetall("h") == {"x": "1", "y": "2"}
    assert r.rpush("l", *range(10)) == 10 and r.lrange("l", 0, 2) == ["0", "1", "2"]
    assert r.sadd("s", "a", "b") == 2 and r.smembers("s") == {"a", "b"}
    assert r.zadd("z", {"a": 1.5, "b": -2}) == 2
    assert [list(pair) for pair in r.zrange("z", 0, -1, withscores=True)] == [["b", -2.0], ["a", 1.5]]
    assert r.expire("k", 100) and 90 < r.ttl("k") <= 100
    assert r.type("z") == "zset" and r.exists("z", "none") == 1
    try:
        r.lpush("k", 1)
        raise AssertionError("WRONGTYPE expected")
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error)
    r.close()


def pipelines(protocol):
    r = client(protocol=protocol)
    with r.pipeline(transaction=False) as pipe:
        for n in range(1000):
            pipe.set(f"p:{n}", n)
            pipe.get(f"p:{n}")
        replies = pipe.execute()
    assert replies[1::2] == [str(n).encode() for n in range(1000)]
    with r.pipeline(transaction=True) as pipe:
        pipe.set("t", 1)
        pipe.incr("t")
        pipe.get("t")
        assert pipe.execute() == [True, 2, b"2"]

    def transfer(pipe):
        value = int(pipe.get("t"))
        pipe.multi()
        pipe.set("t", value + 1)

    r.transaction(transfer, "t")
    assert r.get("t") == b"3"
    with r.pipeline() as pipe:
        pipe.watch("t")
        client().set("t", "changed")
        pipe.multi()
        pipe.set("t", "mine")
        try:
            pipe.execute()
            raise AssertionError("WatchError expected")
        except redis.WatchError:
            pass
    assert r.get("t") == b"changed"


def pubsub(protocol):
    r = client(protocol=protocol, decode_responses=True)
    sub = r.pubsub()
    sub.subscribe("channel")
    sub.psubscribe("chan*")
    seen = []
    while len(seen) < 2:
        message = sub.get_message(timeout=10)
        assert message, "no confirmation"
        seen.append(message["type"])
    assert seen == ["subscribe", "psubscribe"]
    assert r.publish("channel", "hello") == 2
    kinds = {sub.get_message(timeout=10)["type"] for _ in range(2)}
    assert kinds == {"message", "pmessage"}
    sub.unsubscribe()
    sub.punsubscribe()
    sub.close()


def blocking(protocol):
    r = client(protocol=protocol)
    result = []
    waiter = threading.Thread(target=lambda: result.append(client(protocol=protocol).blpop(["q1", "q2"], timeout=15)))
    waiter.start()
    r.rpush("q2", "x")
    waiter.join()
    assert [bytes(part) for part in result[0]] == [b"q2", b"x"], result
    assert r.blpop("nothing", timeout=0.05) is None
    r.rpush("from", "1")
    assert r.blmove("from", "to", timeout=1) == b"1"


def scanning(protocol):
    r = client(protocol=protocol, decode_responses=True)
    r.flushdb()
    r.mset({f"scan:{n}": n for n in range(3000)})
    assert len(set(r.scan_iter(match="scan:*", count=100))) == 3000
    r.hset("big", mapping={f"f{n}": n for n in range(2000)})
    assert len(dict(r.hscan_iter("big"))) == 2000
    assert r.dbsize() == 3001


def streams(protocol):
    r = client(protocol=protocol, decode_responses=True)
    ids = [r.xadd("stream", {"n": n}) for n in range(10)]
    assert [entry[0] for entry in r.xrange("stream")] == ids
    r.xgroup_create("stream", "group", id="0")
    r.xreadgroup("group", "me", {"stream": ">"}, count=4)
    assert r.xpending("stream", "group")["pending"] == 4
    assert r.xack("stream", "group", *ids[:2]) == 2
    assert r.xlen("stream") == 10 and r.xtrim("stream", maxlen=5, approximate=False) == 5
    r.xread({"stream": "$"}, block=20)


def scripts(protocol):
    r = client(protocol=protocol)
    double = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert double(keys=["script"], args=[5]) == 5
    assert double(keys=["script"], args=[5]) == 10


def databases(protocol):
    r = client(protocol=protocol, db=5, client_name="tester")
    r.set("only-here", 1)
    assert client(protocol=protocol).get("only-here") is None
    assert r.client_getname() in (b"tester", "tester")
    assert r.ping()


for protocol in (2, 3):
    for test in (plain, pipelines, pubsub, blocking, scanning, streams, scripts, databases):
        try:
            test(protocol)
        except BaseException:
            print(f"redis-py RESP{protocol} {test.__name__} failed", flush=True)
            raise
print("all passed")
