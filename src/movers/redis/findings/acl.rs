//! Users of a server as `ACL LIST` tells them, and what one user has that another lacks. Pure.
//!
//! Compares keys, channels and databases by their patterns. Which commands a rule allows only a server can say: `permissions` asks it.
//! Passwords are present as SHA-256 hashes, which no message shows.

use std::collections::BTreeSet;

use super::text::cut;

/// One line of `ACL LIST`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct User {
    pub name: String,
    pub on: bool,
    /// Any password will do, and for `default` none is needed.
    pub nopass: bool,
    pub hashes: BTreeSet<String>,
    /// What it may do outside selectors.
    pub root: Grant,
    /// Each is a further way to be allowed something.
    pub selectors: Vec<Grant>,
}

/// Hashes are left out: they can be tried against a dictionary.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("User");
        shown.field("name", &self.name).field("on", &self.on).field("nopass", &self.nopass);
        shown.field("root", &self.root).field("selectors", &self.selectors).finish_non_exhaustive()
    }
}

/// A set of rules that hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Grant {
    /// In the server's order, in which later ones win: "-@all +@read -get".
    commands: String,
    keys: BTreeSet<KeyPattern>,
    channels: BTreeSet<String>,
    /// `None` is every database; only Valkey 9 and later limit them.
    databases: Option<BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct KeyPattern {
    read: bool,
    write: bool,
    glob: String,
}

impl User {
    /// `None` when the line is not one of `ACL LIST`.
    pub fn parse(line: &str) -> Option<Self> {
        let (rules, selectors) = split_selectors(line);
        let mut words = rules.split_ascii_whitespace();
        if words.next()? != "user" {
            return None;
        }
        let name = words.next()?.to_owned();
        let rules: Vec<&str> = words.collect();
        Some(Self {
            name,
            on: rules.contains(&"on"),
            nopass: rules.contains(&"nopass"),
            hashes: rules.iter().filter_map(|rule| rule.strip_prefix('#')).map(str::to_owned).collect(),
            root: Grant::parse(&rules),
            selectors: selectors.iter().map(|rules| Grant::parse(rules)).collect(),
        })
    }

    pub fn can_log_in(&self) -> bool {
        self.on && (self.nopass || !self.hashes.is_empty())
    }

    /// Whether both allow the same commands without asking a server.
    pub fn same_commands(&self, other: &Self) -> bool {
        let of = |user: &Self| {
            let mut rules: Vec<String> = user.selectors.iter().map(|grant| grant.commands.clone()).collect();
            rules.sort_unstable();
            rules
        };
        self.root.commands == other.root.commands && of(self) == of(other)
    }

    /// What `self` may reach and `other` may not, in words; commands aside.
    pub fn reaches_beyond(&self, other: &Self) -> Vec<String> {
        let mut beyond = self.root.reaches_beyond(&other.root);
        let everywhere = other.root.commands == "+@all" && Grant::everything().reaches_beyond(&other.root).is_empty();
        let lost = self.selectors.iter().filter(|grant| !other.selectors.contains(grant)).count();
        if lost > 0 && !everywhere {
            beyond.push(format!("{lost} selectors"));
        }
        beyond
    }
}

/// The rules outside parentheses, and those within each pair.
fn split_selectors(line: &str) -> (String, Vec<Vec<&str>>) {
    let (mut root, mut selectors) = (Vec::new(), Vec::new());
    let mut inside: Option<Vec<&str>> = None;
    for word in line.split_ascii_whitespace() {
        let begins = inside.is_none() && word.starts_with('(');
        if begins {
            inside = Some(Vec::new());
        }
        match &mut inside {
            None => root.push(word),
            Some(rules) => {
                let bare = if begins { &word[1..] } else { word };
                let ended = bare.ends_with(')');
                rules.push(bare.strip_suffix(')').unwrap_or(bare));
                if ended {
                    selectors.extend(inside.take());
                }
            }
        }
    }
    (root.join(" "), selectors)
}

impl Grant {
    fn everything() -> Self {
        Self::parse(&["~*", "&*", "+@all"])
    }

    fn parse(rules: &[&str]) -> Self {
        let mut grant = Self::default();
        let mut commands = Vec::new();
        for rule in rules {
            match *rule {
                "allkeys" => drop(grant.keys.insert(KeyPattern::both("*"))),
                "allchannels" => drop(grant.channels.insert("*".to_owned())),
                "allcommands" => commands.push("+@all"),
                "nocommands" => commands.push("-@all"),
                rule if rule.starts_with(['+', '-']) => commands.push(rule),
                rule => {
                    if let Some(pattern) = KeyPattern::parse(rule) {
                        grant.keys.insert(pattern);
                    } else if let Some(channel) = rule.strip_prefix('&') {
                        grant.channels.insert(channel.to_owned());
                    } else if let Some(numbers) = rule.strip_prefix("db=") {
                        grant.databases = Some(numbers.split(',').map(str::to_owned).collect());
                    }
                }
            }
        }
        grant.commands = commands.join(" ");
        grant
    }

    fn reaches_beyond(&self, other: &Self) -> Vec<String> {
        let mut beyond = Vec::new();
        let keys: Vec<&str> = self.keys.iter().filter(|key| !key.within(&other.keys)).map(|key| &*key.glob).collect();
        let covered = |channel: &String| other.channels.iter().any(|glob| covers(glob, channel));
        let channels: Vec<&str> =
            self.channels.iter().filter(|channel| !covered(channel)).map(String::as_str).collect();
        for (what, patterns) in [("keys", keys), ("channels", channels)] {
            match patterns[..] {
                [] => {}
                [one] => beyond.push(format!("{what} {}", cut(one))),
                [first, ..] => beyond.push(format!("{what} {} and {} more", cut(first), patterns.len() - 1)),
            }
        }
        let databases = match (&self.databases, &other.databases) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(others)) => !own.is_subset(others),
        };
        if databases {
            beyond.push("databases".to_owned());
        }
        beyond
    }
}

impl KeyPattern {
    fn both(glob: &str) -> Self {
        Self { read: true, write: true, glob: glob.to_owned() }
    }

    /// `~glob` or `%RW~glob`.
    fn parse(rule: &str) -> Option<Self> {
        if let Some(glob) = rule.strip_prefix('~') {
            return Some(Self::both(glob));
        }
        let (access, glob) = rule.strip_prefix('%')?.split_once('~')?;
        Some(Self { read: access.contains('R'), write: access.contains('W'), glob: glob.to_owned() })
    }

    /// Reading and writing may be allowed by two patterns of `others`.
    fn within(&self, others: &BTreeSet<Self>) -> bool {
        let allowed =
            |access: fn(&Self) -> bool| others.iter().any(|other| access(other) && covers(&other.glob, &self.glob));
        (!self.read || allowed(|other| other.read)) && (!self.write || allowed(|other| other.write))
    }
}

/// Whether all that `narrow` matches is certainly matched by `wide`: equal, or `wide` is a plain prefix and a star.
fn covers(wide: &str, narrow: &str) -> bool {
    let prefix = wide.strip_suffix('*').filter(|prefix| !prefix.contains(['*', '?', '[', '\\']));
    wide == narrow || prefix.is_some_and(|prefix| narrow.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_read_with_its_selectors_and_without_showing_its_passwords() {
        let line = "user app on sanitize-payload #30c9 #77aa ~a:* %R~log:* resetchannels &ch db=0,1 -@all +@read -get (%R~b:* resetchannels -@all +set) (~c &* +@all)";
        let user = User::parse(line).unwrap();
        assert_eq!((user.name.as_str(), user.on, user.nopass, user.hashes.len()), ("app", true, false, 2));
        assert_eq!(
            (user.root.commands.as_str(), user.root.keys.len(), user.selectors.len()),
            ("-@all +@read -get", 2, 2)
        );
        assert_eq!(user.selectors[0].commands, "-@all +set");
        assert!(user.can_log_in() && !format!("{user:?}").contains("30c9"));
        for (line, can) in [
            ("user a on resetchannels -@all", false),
            ("user a off nopass ~* &* +@all", false),
            ("user a on nopass -@all", true),
        ] {
            assert_eq!(User::parse(line).unwrap().can_log_in(), can, "{line}");
        }
        for line in ["", "user", "nobody a on"] {
            assert_eq!(User::parse(line), None, "{line}");
        }
    }

    #[test]
    fn what_one_user_reaches_beyond_another_is_said() {
        let table: &[(&str, &str, &[&str])] = &[
            ("~* &* +@all", "~* &* +@all", &[]),
            ("~a:* +@all", "~* +@all", &[]),
            ("~a:b:* +@all", "~a:* +@all", &[]),
            ("~a:* +@all", "~a:b:* +@all", &["keys a:*"]),
            ("~* +@all", "~a +@all ~b", &["keys *"]),
            ("~a ~b ~c +@all", "~c +@all", &["keys a and 1 more"]),
            ("~a* +@all", "%R~a* %W~* +@all", &[]),
            ("~a* +@all", "%R~* +@all", &["keys a*"]),
            ("%R~a* +@all", "~a* +@all", &[]),
            // What cannot be told from the patterns is said, not passed over.
            ("~abc +@all", "~a?c +@all", &["keys abc"]),
            ("&news:* +@all", "resetchannels +@all", &["channels news:*"]),
            ("&news:* +@all", "&* +@all", &[]),
            ("~* +@all", "~* db=0 +@all", &["databases"]),
            ("~* db=0 +@all", "~* db=0,1 +@all", &[]),
            ("~* db=0,2 +@all", "~* db=0,1 +@all", &["databases"]),
            ("-@all (~a +get)", "-@all (~a +get)", &[]),
            ("-@all (~a +get) (~b +get)", "-@all (~a +get)", &["1 selectors"]),
            ("-@all (~a +get)", "~* &* +@all", &[]),
        ];
        for (source, target, expected) in table {
            let user = |rules: &str| User::parse(&format!("user app on nopass {rules}")).unwrap();
            assert_eq!(user(source).reaches_beyond(&user(target)), *expected, "{source} against {target}");
        }
    }
}
