//! What each class of session state means when a PostgreSQL session is to go on at another server. Pure; the classes are wire's.

use wire::postgres::facts::Keeps;

/// (class, whether the session can be moved with it, what it means)
const MEANINGS: &[(Keeps, bool, &str)] = &[
    (
        Keeps::TEMP_TABLE,
        false,
        "temporary tables live in one server's session: not movable, the session must end or drop them first",
    ),
    (
        Keeps::HELD_CURSOR,
        false,
        "a cursor WITH HOLD keeps its rows in the session: not movable, the session must close it first",
    ),
    (
        Keeps::CURRVAL,
        false,
        "currval and lastval remember a number of this session: not movable until the session calls nextval again",
    ),
    (Keeps::SQL_PREPARE, true, "prepared statements are prepared again on the other server"),
    (Keeps::PREPARED, true, "prepared statements are prepared again on the other server"),
    (Keeps::LISTEN, true, "LISTEN is repeated on the other server; notifications sent in between are not"),
    (Keeps::ADVISORY_LOCK, true, "advisory locks are taken again on the other server while clients are held"),
    (Keeps::SET, true, "session settings and SET ROLE are repeated on the other server"),
    (Keeps::SET_CONFIG, true, "session settings and SET ROLE are repeated on the other server"),
    (Keeps::CUSTOM_SETTING, true, "session settings and SET ROLE are repeated on the other server"),
    (Keeps::LARGE_OBJECT, true, "a large object is open until its transaction ends, and a move waits for that"),
];

/// `None`: not a class this version knows.
pub fn meaning(state: &str) -> Option<(bool, &'static str)> {
    let named = |keeps: Keeps| keeps.names().any(|name| name == state);
    MEANINGS.iter().find(|(keeps, ..)| named(*keeps)).map(|(_, movable, meaning)| (*movable, *meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are the data plane's own.
    #[test]
    fn every_class_the_data_plane_counts_has_a_meaning() {
        let all = MEANINGS.iter().fold(Keeps::default(), |all, (keeps, ..)| all | *keeps);
        let names: Vec<_> = all.names().collect();
        assert!(names.len() >= 10, "{names:?}");
        for name in names {
            assert!(meaning(name).is_some(), "{name}");
        }
        let fixed: Vec<_> = [Keeps::TEMP_TABLE, Keeps::HELD_CURSOR, Keeps::CURRVAL]
            .iter()
            .flat_map(|keeps| keeps.names())
            .map(|name| meaning(name).map(|(movable, _)| movable))
            .collect();
        assert_eq!(fixed, [Some(false); 3]);
        assert_eq!(meaning("flux"), None);
    }
}
