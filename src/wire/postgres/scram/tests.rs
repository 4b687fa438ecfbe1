//! SCRAM: the RFC's vector, handshakes of our two sides, messages that are wrong. Tests only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::client::{Proves, ScramClient};
use super::keys::{ClientKey, hmac, mock_verifier, verifier_from_password};
use super::server::{AuthFailure, Begun, ScramServer, TlsEnds};
use base::model::login::ScramVerifier;

const SALT: [u8; 16] = *b"sixteen bytes ok";

fn pencil() -> ScramVerifier {
    verifier_from_password(b"pencil", &SALT, 4096)
}

fn server(verifier: ScramVerifier) -> ScramServer {
    ScramServer::new(verifier, [7; 18], TlsEnds::AtCrossfade)
}

fn handshake(client: &mut ScramClient, server: &mut ScramServer) -> Result<ClientKey, AuthFailure> {
    let first = server.first(&client.client_first())?;
    let last = client.client_final(&first).expect("the server's message is good");
    let (end, key) = server.last(&last)?;
    assert_eq!(client.check_server_final(&end), Ok(()));
    Ok(key)
}

#[test]
fn the_vector_of_rfc_7677() {
    let (nonce, bare) = ("rOprNGfwEbeRWgbNEkqO", "n=user,r=rOprNGfwEbeRWgbNEkqO");
    let server_first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let mut client = ScramClient::new(Proves::Password(b"pencil".to_vec()), nonce.to_owned());
    let last = client.prove(bare, server_first).expect("good");
    let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    assert_eq!(String::from_utf8(last.clone()).expect("text"), expected);
    assert_eq!(client.check_server_final(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
    assert!(client.check_server_final(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").is_err());
    // And the checking side takes the same proof.
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
    let mut server = server(verifier_from_password(b"pencil", &salt, 4096));
    server.begun = Some(Begun {
        gs2_header: "n,,".to_owned(),
        client_first_bare: bare.to_owned(),
        server_first: String::from_utf8(server_first.to_vec()).expect("text"),
        nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
    });
    let (end, _) = server.last(&last).expect("right");
    assert_eq!(end, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

/// RFC 4231, test cases 2 and 6: a key shorter than a block, and one that is longer and so is hashed first.
#[test]
fn hmac_takes_keys_of_every_length() {
    let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let short = hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
    assert_eq!(hex(short), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    let long = hmac(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"]);
    assert_eq!(hex(long), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

#[test]
fn a_key_from_one_handshake_completes_another() {
    let key = handshake(&mut ScramClient::with_password(b"pencil", [1; 18]), &mut server(pencil())).expect("right");
    let mut client = ScramClient::with_key(key.clone(), pencil(), [2; 18]);
    let again = handshake(&mut client, &mut server(pencil())).expect("the key is as good as the password");
    assert_eq!(key, again);
    assert_eq!(format!("{key:?} {client:?}"), "*** ScramClient(***)");
}

#[test]
fn another_verifier_of_the_same_password_is_named() {
    let key = handshake(&mut ScramClient::with_password(b"pencil", [1; 18]), &mut server(pencil())).expect("right");
    for other in [verifier_from_password(b"pencil", &SALT, 4095), verifier_from_password(b"pencil", b"other", 4096)] {
        let mut client = ScramClient::with_key(key.clone(), pencil(), [2; 18]);
        let first = server(other).first(&client.client_first()).expect("good");
        assert!(client.client_final(&first).expect_err("refused").contains("copy the role with its verifier"));
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_fail_alike() {
    let mut client = ScramClient::with_password(b"pencils", [1; 18]);
    assert_eq!(handshake(&mut client, &mut server(pencil())), Err(AuthFailure::Wrong));
    let mock = mock_verifier("nobody", &[5; 32]);
    assert_eq!(mock, mock_verifier("nobody", &[5; 32]));
    assert_ne!(mock.salt, mock_verifier("somebody", &[5; 32]).salt);
    assert_eq!((mock.iterations, mock.salt.len()), (4096, 16));
    let mut client = ScramClient::with_password(b"pencil", [1; 18]);
    assert_eq!(handshake(&mut client, &mut server(mock)), Err(AuthFailure::Wrong));
}

#[test]
fn malformed_first_messages() {
    for (bad, word) in [
        (&b""[..], "header"),
        (b"n,,", "user name"),
        (b"n,,n=a", "nonce"),
        (b"n,,n=a,r=", "nonce"),
        (b"n,,n=a,r=a b", "nonce"),
        (b"x,,n=a,r=abc", "channel-binding flag"),
        (b"n,a=ann,n=a,r=abc", "authorization identity"),
        (b"n,,m=x,n=a,r=abc", "extension"),
        (b"p=tls-server-end-point,,n=a,r=abc", "TLS ends at Crossfade"),
        (b"\xff", "UTF-8"),
    ] {
        let Err(AuthFailure::Malformed(why)) = server(pencil()).first(bad) else { panic!("{bad:?}") };
        assert!(why.contains(word), "{why}");
    }
    let mut plain = ScramServer::new(pencil(), [0; 18], TlsEnds::Nowhere);
    let Err(AuthFailure::Malformed(why)) = plain.first(b"p=x,,n=,r=a") else { panic!() };
    assert!(why.contains("no TLS") && why.contains("channel_binding"), "{why}");
    assert!(server(pencil()).first(b"y,,n=a,r=abc,x=ext").is_ok());
}

#[test]
fn malformed_last_messages_and_servers() {
    let client = ScramClient::with_password(b"pencil", [1; 18]);
    let nonce = format!("{}{}", client.nonce, STANDARD.encode([7; 18]));
    let proof = STANDARD.encode([0; 32]);
    for (bad, failure) in [
        (format!("c=biws,r={nonce},p={proof}"), AuthFailure::Wrong),
        (format!("c=biws,r={nonce}"), AuthFailure::Malformed("no proof".to_owned())),
        (format!("c=eSws,r={nonce},p={proof}"), AuthFailure::Malformed("channel-binding".to_owned())),
        (format!("c=biws,r={nonce}x,p={proof}"), AuthFailure::Malformed("nonce".to_owned())),
        (format!("c=biws,r={nonce},p=AAAA"), AuthFailure::Malformed("malformed proof".to_owned())),
    ] {
        let mut server = server(pencil());
        server.first(&client.client_first()).expect("good");
        match (server.last(bad.as_bytes()).expect_err("refused"), failure) {
            (AuthFailure::Wrong, AuthFailure::Wrong) => {}
            (AuthFailure::Malformed(why), AuthFailure::Malformed(word)) => assert!(why.contains(&word), "{why}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    assert!(matches!(server(pencil()).last(b"c=biws"), Err(AuthFailure::Malformed(_))));
    let ours = ScramClient::with_password(b"pencil", [1; 18]).nonce;
    for bad in [
        "".to_owned(),
        "r=other,s=QQ==,i=4096".to_owned(),
        format!("r={ours},s=QQ==,i=1"),
        format!("r={ours}x,s=?,i=1"),
        format!("r={ours}x,s=QQ==,i=0"),
        format!("r={ours}x,s=QQ==,i=1000001"),
    ] {
        assert!(ScramClient::with_password(b"pencil", [1; 18]).client_final(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(client.check_server_final(b"v=").is_err());
    assert!(client.check_server_final(b"e=other-error").expect_err("error").contains("other-error"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(first: Vec<u8>, last: Vec<u8>) {
        let mut server = server(mock_verifier("a", &[0; 32]));
        let _ = server.first(&first);
        let _ = server.first(b"n,,n=,r=abc");
        proptest::prop_assert!(server.last(&last).is_err());
        let mut client = ScramClient::with_key(ClientKey([0; 32]), mock_verifier("a", &[0; 32]), [0; 18]);
        let _ = client.client_final(&first);
        let _ = client.check_server_final(&last);
    }
}
