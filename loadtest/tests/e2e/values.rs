//! Large values and odd bytes pass whole.

use crossfade_loadtest::crossfade::Crossfade;
use crossfade_loadtest::server::{Kind, RealServer};

fn in_front() -> (Crossfade, RealServer) {
    let server = RealServer::start(Kind::Redis);
    (Crossfade::start(&server.url(), None), server)
}

#[test]
fn a_value_of_512_mb_passes_both_ways_and_others_are_served_meanwhile() {
    const LENGTH: usize = 512 * 1024 * 1024;
    let (proxy, server) = in_front();
    let mut connection = proxy.connection();
    // A pattern with a long period, so that a shifted or repeated block is detected.
    let value: Vec<u8> = (0..LENGTH).map(|at| ((at >> 8) ^ at) as u8).collect();
    redis::cmd("SET").arg("big").arg(&value).exec(&mut connection).expect("SET of 512 MB");
    let port = proxy.port;
    let other = std::thread::spawn(move || {
        let mut connection = crossfade_loadtest::server::connect(port);
        (0..100).all(|_| redis::cmd("PING").query::<String>(&mut connection).is_ok())
    });
    let back: Vec<u8> = redis::cmd("GET").arg("big").query(&mut connection).expect("GET of 512 MB");
    assert!(back == value, "the value came back different, {} bytes", back.len());
    assert!(other.join().unwrap(), "another client was not served");
    drop(back);
    let direct: usize = redis::cmd("STRLEN").arg("big").query(&mut server.connection()).unwrap();
    assert_eq!(direct, LENGTH);
}

#[test]
fn keys_and_values_may_be_any_bytes() {
    let (proxy, server) = in_front();
    let (mut through, mut direct) = (proxy.connection(), server.connection());
    let every: Vec<u8> = (0..=255).collect();
    for key in [&b""[..], b"\r\n", b"\0", &every] {
        for value in [&b""[..], b"\r\n$5\r\n", &every] {
            redis::cmd("SET").arg(key).arg(value).exec(&mut through).unwrap();
            assert_eq!(redis::cmd("GET").arg(key).query::<Vec<u8>>(&mut direct).unwrap(), value);
            assert_eq!(redis::cmd("GET").arg(key).query::<Vec<u8>>(&mut through).unwrap(), value);
        }
    }
}

#[test]
fn a_command_arrives_whole_however_it_is_cut() {
    use std::io::{Read, Write};
    let (proxy, _server) = in_front();
    let request = b"*3\r\n$3\r\nSET\r\n$3\r\ncut\r\n$5\r\nhello\r\nGET cut\r\n";
    for cut in 1..request.len() {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        stream.write_all(&request[..cut]).unwrap();
        stream.write_all(&request[cut..]).unwrap();
        let mut reply = [0; 16];
        stream.read_exact(&mut reply).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(&reply, b"+OK\r\n$5\r\nhello\r\n", "cut at {cut}");
    }
}
