//! Regular expressions as the crate's matcher judges them, against Node.js: the same answer, or none.

use std::collections::BTreeMap;

use parse_livequery::test_server::verdict;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::matcher::ask_server;
use crate::support::install;

/// Of each expression some texts are judged.
const EXPRESSIONS: usize = 8_000;
const TEXTS: usize = 6;

// What some engines fold, count, or take for the end of a line otherwise than JavaScript does.
const CHARACTERS: &str = "abABc109_ -éß\u{17f}K\u{212a}\n\r\u{2028}zksS./xİıµΣςσ\u{a0}\u{feff}Ω😀";
const FLAGS: [&str; 14] = [
    "", "", "", "i", "i", "m", "s", "im", "ims", "u", "iu", "g", "su", "imu",
];

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn expressions_are_judged_as_node_judges_them() {
    install();
    let seed = std::env::var("MATCHER_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random = Random(StdRng::seed_from_u64(seed));
    let mut pairs = Vec::new();
    for index in 0..EXPRESSIONS {
        // Half of them have what is special to JavaScript, is none of its syntax, or is beyond the engine.
        let source = random.branches(3, index % 2 == 0);
        let condition = json!({ "$regex": source, "$options": random.pick(&FLAGS) });
        let texts = (0..TEXTS).map(|_| random.text());
        pairs.extend(texts.map(|text| {
            (
                json!({ "s": condition }).to_string(),
                json!({ "s": text }).to_string(),
            )
        }));
    }
    let theirs = ask_server(&pairs);
    assert_eq!(theirs.len(), pairs.len());

    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for ((query, object), theirs) in pairs.iter().zip(&theirs) {
        let ours = verdict(query, object).unwrap();
        *count.entry(ours.join(" or ")).or_default() += 1;
        if !ours.contains(&theirs.as_str()) {
            wrong.push(format!("{ours:?}, Node.js: {theirs}\n  {query}\n  {object}"));
        }
    }
    println!("{count:?}");
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} of {} differ, such as\n{}",
        wrong.len(),
        pairs.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );
    for answer in ["match", "no match"] {
        assert!(
            count.get(answer).is_some_and(|count| *count > pairs.len() / 10),
            "{count:?}"
        );
    }
}

struct Random(StdRng);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn text(&mut self) -> String {
        let length = self.below(7);
        (0..length).map(|_| self.character()).collect()
    }

    fn character(&mut self) -> char {
        let characters: Vec<char> = CHARACTERS.chars().collect();
        characters[self.below(characters.len())]
    }

    /// A character that an expression may have as it is.
    fn letter(&mut self) -> char {
        let letters: Vec<char> = "abABc109_ -zksSKx/Ωé\u{17f}".chars().collect();
        // Without `u`, expressions with others are not judged at all.
        let end = if self.below(20) == 0 {
            letters.len()
        } else {
            letters.len() - 3
        };
        letters[self.below(end)]
    }

    fn branches(&mut self, depth: usize, odd: bool) -> String {
        let count = 1 + self.below(3);
        let mut out: String = (0..count).map(|_| self.term(depth, odd)).collect();
        if self.below(5) == 0 {
            out.push('|');
            if self.below(3) != 0 {
                out += &self.branches(depth.saturating_sub(1), odd);
            }
        }
        out
    }

    fn term(&mut self, depth: usize, odd: bool) -> String {
        let quantifiers = [
            "", "", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,}", "*?", "+?", "??", "{1,2}?",
        ];
        let odd_quantifiers = ["{2,1}", "{0}", "{1", "**", "{,2}", "{0}?"];
        let atom = self.atom(depth, odd);
        let quantifier = if odd && self.below(8) == 0 {
            self.pick(&odd_quantifiers)
        } else {
            self.pick(&quantifiers)
        };
        atom + quantifier
    }

    fn atom(&mut self, depth: usize, odd: bool) -> String {
        let escapes = [
            r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\b", r"\B", r"\.", r"\n", r"\x41", r"\u0061", r"\/",
            r"\-", r"\v", r"\0", r"\p{L}",
        ];
        let odd_escapes = [
            r"\1", r"\2", r"\k<n>", r"\u{61}", r"\p{L}", r"\P{Lu}", r"\8", r"\07", r"\c", r"\cA", r"\x4",
            r"\u00", r"\q", r"\a", r"\_",
        ];
        let groups = ["(", "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?<n>", "(?<m>"];
        let odd_groups = ["(?i:", "(?-i:", "(?s:", "(?", "(*"];
        let odd_characters = ["{", "}", "]", "{a", "a{", "[]", "[^]", ")", "("];
        match self.below(9) {
            0..=2 => self.letter().to_string(),
            3 if odd => self.pick(&odd_escapes).to_owned(),
            3 | 4 => self.pick(&escapes).to_owned(),
            5 => self.class(odd, &escapes),
            6 if odd && self.below(4) == 0 => self.pick(&odd_characters).to_owned(),
            6 => self.pick(&["^", "$", ".", "."]).to_owned(),
            _ if depth == 0 => "a".to_owned(),
            _ => {
                let group = if odd && self.below(8) == 0 {
                    self.pick(&odd_groups)
                } else {
                    self.pick(&groups)
                };
                format!("{group}{})", self.branches(depth - 1, odd))
            }
        }
    }

    fn class(&mut self, odd: bool, escapes: &[&str]) -> String {
        let members = [
            "a-z", "A-Z", "0-9", "a-b", "-", "^", r"\]", "$", "(", "|", "&&", "--", r"\w-", r"\b",
        ];
        let odd_members = [
            "z-a",
            r"\d-a",
            r"a-\d",
            r"\B",
            r"\ca",
            r"\x4",
            "[",
            r"\u{61}",
            r"\u212a",
            r"\u0100-\u0200",
        ];
        let mut out = self.pick(&["[", "[", "[^"]).to_owned();
        for _ in 0..self.below(4) {
            match self.below(3) {
                0 => out.push(self.letter()),
                1 if odd && self.below(3) == 0 => out += self.pick(&odd_members),
                1 => out += self.pick(&members),
                _ => out += self.pick(escapes),
            }
        }
        out + "]"
    }
}
