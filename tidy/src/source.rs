//! Rust source taken apart, line by line, into code, comments and literals.

/// One Rust file. Every field has one entry per line.
#[derive(Debug, Default)]
pub struct Source {
    /// The code; comments and the insides of literals are blank, columns are kept.
    pub code: Vec<String>,
    /// The comments with their markers; everything else is blank, columns are kept.
    pub comments: Vec<String>,
    /// Columns of the longest part of a string literal on the line.
    pub literal_columns: Vec<usize>,
    /// Whether the line is in a module under `#[cfg(test)]`.
    pub test: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Takes `text` apart. Text that is not Rust gives a wrong answer, not an error.
    #[must_use]
    pub fn parse(text: &str) -> Source {
        let chars: Vec<char> = text.chars().collect();
        let classes = classify(&chars);
        let mut source = Source::default();
        let mut start = 0;
        while start < chars.len() {
            let rest = &chars[start..];
            let end = start + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
            let only = |class: Class| -> String {
                let line: String = (start..end)
                    .map(|at| if classes[at] == class { chars[at] } else { ' ' })
                    .collect();
                line.trim_end().to_owned()
            };
            source.code.push(only(Class::Code));
            source.comments.push(only(Class::Comment));
            source.literal_columns.push(
                classes[start..end]
                    .split(|class| *class != Class::Literal)
                    .map(<[Class]>::len)
                    .max()
                    .unwrap_or(0),
            );
            start = end + 1;
        }
        source.test = test_lines(&source.code);
        source
    }

    /// The name of the function that line `line` (from 0) stands in or directly before.
    #[must_use]
    pub fn function_at(&self, line: usize) -> Option<&str> {
        self.function_around(line)
            .or_else(|| self.function_after(line))
    }

    /// The innermost function whose body or signature holds `line`.
    fn function_around(&self, line: usize) -> Option<&str> {
        (0..=line).rev().find_map(|at| {
            let name = function_name(&self.code[at])?;
            (self.last_line_of_item(at) >= line).then_some(name)
        })
    }

    /// The function that begins after `line` with only comments and attributes between.
    fn function_after(&self, line: usize) -> Option<&str> {
        for code in &self.code[line..] {
            if let Some(name) = function_name(code) {
                return Some(name);
            }
            let code = code.trim();
            if !code.is_empty() && !code.starts_with("#[") {
                return None;
            }
        }
        None
    }

    /// The last line of the item that begins at `first`: where its braces close, or its `;`.
    fn last_line_of_item(&self, first: usize) -> usize {
        last_line_of_item(&self.code, first)
    }
}

/// Whether everything in the file at `path` is for tests.
#[must_use]
pub fn is_test(path: &str) -> bool {
    path.starts_with("conformance/src/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// The name in a line that begins a function.
fn function_name(code: &str) -> Option<&str> {
    let at = code.find("fn ")?;
    let before = code[..at].trim();
    let words = ["pub", "const", "async", "unsafe", "extern", "\"\""];
    let is_function = before
        .split_whitespace()
        .all(|word| words.contains(&word) || word.starts_with("pub("));
    let name = code[at + 3..]
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()?;
    (is_function && !name.is_empty()).then_some(name)
}

fn last_line_of_item(code: &[String], first: usize) -> usize {
    let mut depth = 0_usize;
    for (at, line) in code.iter().enumerate().skip(first) {
        for c in line.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && c == '}' {
                        return at;
                    }
                }
                ';' if depth == 0 => return at,
                _ => {}
            }
        }
    }
    code.len().saturating_sub(1)
}

fn test_lines(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    for first in 0..code.len() {
        if !test[first] && code[first].trim_start().starts_with("#[cfg(test)]") {
            let last = last_line_of_item(code, first + 1).min(code.len() - 1);
            test[first..=last].fill(true);
        }
    }
    test
}

/// What every character is. Quotes count as code, the markers of a comment as comment.
fn classify(chars: &[char]) -> Vec<Class> {
    let mut classes = vec![Class::Code; chars.len()];
    let is = |at: usize, c: char| chars.get(at) == Some(&c);
    let word = |at: usize| {
        chars
            .get(at)
            .is_some_and(|c| c.is_alphanumeric() || *c == '_')
    };
    let mut at = 0;
    while at < chars.len() {
        let (class, begin, end, next) = if is(at, '/') && is(at + 1, '/') {
            let end = (at..chars.len()).find(|at| is(*at, '\n'));
            let end = end.unwrap_or(chars.len());
            (Class::Comment, at, end, end)
        } else if is(at, '/') && is(at + 1, '*') {
            let end = end_of_block(chars, at);
            (Class::Comment, at, end, end)
        } else if is(at, '"') {
            let end = end_of_text(chars, at + 1, '"');
            (Class::Literal, at + 1, end, end + 1)
        } else if is(at, '\'') {
            // A lifetime has no second quote.
            let literal = is(at + 1, '\\') || is(at + 2, '\'');
            let end = if literal {
                end_of_text(chars, at + 1, '\'')
            } else {
                at
            };
            (Class::Literal, at + 1, end, end + 1)
        } else if word(at) {
            let end = (at..).find(|at| !word(*at)).unwrap_or(chars.len());
            let name: String = chars[at..end].iter().collect();
            let hashes = (end..).take_while(|at| is(*at, '#')).count();
            if ["r", "br", "cr"].contains(&name.as_str()) && is(end + hashes, '"') {
                let begin = end + hashes + 1;
                let end = end_of_raw(chars, begin, hashes);
                (Class::Literal, begin, end, end + 1 + hashes)
            } else {
                (Class::Code, at, end, end)
            }
        } else {
            (Class::Code, at, at, at + 1)
        };
        if begin < end {
            classes[begin..end].fill(class);
        }
        at = next;
    }
    classes
}

fn end_of_block(chars: &[char], begin: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = begin;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn end_of_text(chars: &[char], begin: usize, quote: char) -> usize {
    let mut at = begin;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at,
            _ => at += 1,
        }
    }
    chars.len()
}

fn end_of_raw(chars: &[char], begin: usize, hashes: usize) -> usize {
    (begin..chars.len())
        .find(|at| {
            chars[*at] == '"' && (1..=hashes).all(|after| chars.get(at + after) == Some(&'#'))
        })
        .unwrap_or(chars.len())
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn comments_and_literals_are_told_from_code() {
        let source = Source::parse(
            "let a = \"x // y\"; // z\nlet b = r#\"\"/*\"#; /* c\n d */ let e = '\"';\nfn f<'a>() {}",
        );
        assert_eq!(source.code[0], "let a = \"      \";");
        assert_eq!(source.comments[0].trim(), "// z");
        assert_eq!(source.code[1], "let b = r#\"   \"#;");
        assert_eq!(source.comments[1].trim(), "/* c");
        assert_eq!(source.comments[2], " d */");
        assert_eq!(source.code[2].trim(), "let e = ' ';");
        assert_eq!(source.code[3], "fn f<'a>() {}");
        assert_eq!(source.literal_columns, [6, 3, 1, 0]);
    }

    #[test]
    fn an_escaped_quote_does_not_end_a_literal() {
        let source = Source::parse(r#"f("a\"b", '\'', '\\'); g("c")"#);
        assert_eq!(source.code[0], r#"f("    ", '  ', '  '); g(" ")"#);
    }

    #[test]
    fn test_modules_are_found() {
        let source = Source::parse(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n\
             #[cfg(test)]\nmod more;\nfn d() {}",
        );
        let expected = [
            false, true, true, true, true, true, false, true, true, false,
        ];
        assert_eq!(source.test, expected);
    }

    #[test]
    fn a_line_belongs_to_the_function_around_it_or_after_it() {
        let source = Source::parse(
            "// before\n#[test]\npub(crate) fn a(\n    x: u8,\n) {\n    y(fn_name);\n}\n\n\
             const Z: u8 = 1;\nimpl X {\n    // of b\n    fn b() {}\n}",
        );
        assert_eq!(source.function_at(0), Some("a"));
        assert_eq!(source.function_at(3), Some("a"));
        assert_eq!(source.function_at(5), Some("a"));
        assert_eq!(source.function_at(7), None);
        assert_eq!(source.function_at(10), Some("b"));
    }
}
