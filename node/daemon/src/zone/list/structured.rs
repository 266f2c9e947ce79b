//! JSON, one object for each host, in an array or line by line; TOML, a table `[[host]]` for each.

use std::io::{BufRead, Read};

use serde::Deserialize;
use serde_json::Value;

use super::{COLUMNS, Field, Row, RowError};

type Rows = Box<dyn Iterator<Item = Result<Row, RowError>>>;

/// JSON objects: on lines of their own, or as the lines of an array; read line by line, so that a
/// list of any length fits. An array that is laid out otherwise is read as a whole.
pub(super) fn json(input: Box<dyn BufRead>) -> Rows {
    let mut lines = Lines { input, line: 0 };
    let first = loop {
        match lines.next() {
            None => return Box::new(std::iter::empty()),
            Some(Err(e)) => return Box::new(std::iter::once(Err(e))),
            Some(Ok((_, text))) if text.trim().is_empty() => {}
            Some(Ok(first)) => break first,
        }
    };
    let element = |text: &str| text.trim().trim_end_matches(',').to_owned();
    let by_lines = match first.1.trim() {
        "[" => true,
        other => serde_json::from_str::<Value>(&element(other)).is_ok_and(|v| v.is_object()),
    };
    if !by_lines {
        return whole_json(first, lines);
    }
    let rows = std::iter::once(Ok(first)).chain(lines).filter_map(move |line| {
        let (line, text) = match line {
            Ok(line) => line,
            Err(e) => return Some(Err(e)),
        };
        let text = element(&text);
        if matches!(text.as_str(), "" | "[" | "]") {
            return None;
        }
        let value = serde_json::from_str::<Value>(&text).map_err(|e| RowError {
            line,
            column: u32::try_from(e.column()).unwrap_or(u32::MAX),
            what: format!("JSON, one object to a line: {e}"),
        });
        Some(value.and_then(|value| from_json(&value, line)))
    });
    Box::new(rows)
}

fn whole_json(first: (u32, String), lines: Lines) -> Rows {
    let mut text = "\n".repeat(usize::try_from(first.0.saturating_sub(1)).unwrap_or(0));
    text.push_str(&first.1);
    for line in lines {
        match line {
            Ok((_, line)) => text.push_str(&line),
            Err(e) => return Box::new(std::iter::once(Err(e))),
        }
        if text.len() > MAX_WHOLE {
            return Box::new(std::iter::once(Err(too_large(
                "put each JSON object on its own line",
            ))));
        }
    }
    match serde_json::from_str::<Vec<Value>>(&text) {
        Ok(values) => Box::new(values.into_iter().zip(1..).map(|(value, nth)| {
            from_json(&value, 0)
                .map_err(|e| RowError { what: format!("object {nth}: {}", e.what), ..e })
        })),
        Err(e) => Box::new(std::iter::once(Err(RowError {
            line: u32::try_from(e.line()).unwrap_or(0),
            column: u32::try_from(e.column()).unwrap_or(0),
            what: format!("JSON: {e}"),
        }))),
    }
}

fn from_json(value: &Value, line: u32) -> Result<Row, RowError> {
    let error = |what: String| RowError { line, column: 1, what };
    let object = value.as_object().ok_or_else(|| error("expected a JSON object".to_owned()))?;
    let mut row = Row { line, ..Row::default() };
    for (name, value) in object {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(error(format!("{name}: expected a string or a number"))),
        };
        row.set(name, text, line, 1)?;
    }
    Ok(row)
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    host: Vec<toml::Spanned<toml::Table>>,
}

/// A TOML document. It is read as a whole: for lists that people write by hand.
pub(super) fn toml(input: Box<dyn BufRead>) -> Rows {
    let mut text = String::new();
    let limit = u64::try_from(MAX_WHOLE).unwrap_or(u64::MAX);
    if let Err(e) = input.take(limit + 1).read_to_string(&mut text) {
        let what = format!("cannot be read: {e}");
        return Box::new(std::iter::once(Err(RowError { line: 1, column: 1, what })));
    }
    if text.len() > MAX_WHOLE {
        return Box::new(std::iter::once(Err(too_large("use CSV, or JSON line by line"))));
    }
    let document: Document = match toml::from_str(&text) {
        Ok(document) => document,
        Err(e) => {
            let (line, column) = place(&text, e.span().map_or(0, |span| span.start));
            let what = e.message().to_owned();
            return Box::new(std::iter::once(Err(RowError { line, column, what })));
        }
    };
    let rows: Vec<Result<Row, RowError>> = document
        .host
        .iter()
        .map(|host| {
            let (line, column) = place(&text, host.span().start);
            let mut row = Row { line, ..Row::default() };
            for (name, value) in host.get_ref() {
                let text = match value {
                    toml::Value::String(text) => text.clone(),
                    toml::Value::Integer(number) => number.to_string(),
                    _ => {
                        let what = format!("{name}: expected a string or a number");
                        return Err(RowError { line, column, what });
                    }
                };
                row.set(name, text, line, column)?;
            }
            Ok(row)
        })
        .collect();
    Box::new(rows.into_iter())
}

impl Row {
    fn set(&mut self, name: &str, text: String, line: u32, column: u32) -> Result<(), RowError> {
        let at = COLUMNS.iter().position(|c| *c == name || c.replace('-', "_") == name);
        match at.and_then(|at| self.fields.get_mut(at)) {
            Some(slot) => {
                *slot = Some(Field { text, line, column });
                Ok(())
            }
            None => {
                let what = format!("\"{name}\": expected one of {}", COLUMNS.join(", "));
                Err(RowError { line, column, what })
            }
        }
    }
}

struct Lines {
    input: Box<dyn BufRead>,
    line: u32,
}

impl Iterator for Lines {
    type Item = Result<(u32, String), RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = Vec::new();
        self.line = self.line.saturating_add(1);
        let limit = u64::try_from(MAX_WHOLE).unwrap_or(u64::MAX);
        let error = |what: String| RowError { line: self.line, column: 1, what };
        match (&mut self.input).take(limit).read_until(b'\n', &mut text) {
            Ok(0) => None,
            Ok(_) => Some(
                String::from_utf8(text)
                    .map(|text| (self.line, text))
                    .map_err(|_| error("expected UTF-8".to_owned())),
            ),
            Err(e) => Some(Err(error(format!("cannot be read: {e}")))),
        }
    }
}

fn place(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").len() + 1;
    (u32::try_from(line).unwrap_or(0), u32::try_from(column).unwrap_or(0))
}

fn too_large(instead: &str) -> RowError {
    let what = format!("more than {MAX_WHOLE} octets in one piece: {instead}");
    RowError { line: 1, column: 1, what }
}

/// What is held in memory at once.
const MAX_WHOLE: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: fn(Box<dyn BufRead>) -> Rows, text: &str) -> Vec<Result<String, String>> {
        rows(Box::new(std::io::Cursor::new(text.as_bytes().to_vec())))
            .map(|row| match row {
                Ok(row) => {
                    let fields = row.fields.iter().flatten().map(|f| f.text.as_str());
                    Ok(format!("{}: {}", row.line, fields.collect::<Vec<_>>().join(" ")))
                }
                Err(e) => Err(format!("{}:{}: {}", e.line, e.column, e.what)),
            })
            .collect()
    }

    #[test]
    fn json_in_three_layouts() {
        let lines = "{\"address\":\"192.0.2.1\",\"precedence\":5}\n{\"address\":\"192.0.2.2\"}\n";
        assert_eq!(read(json, lines), [Ok("1: 192.0.2.1 5".into()), Ok("2: 192.0.2.2".into())]);
        let array = "[\n{\"address\":\"192.0.2.1\"},\n{\"adress\":\"x\"},\n{nonsense\n]\n";
        let got = read(json, array);
        assert_eq!(got[0], Ok("2: 192.0.2.1".into()));
        assert!(
            got[1].as_ref().unwrap_err().starts_with("3:1: \"adress\": expected one of address")
        );
        assert!(got[2].as_ref().unwrap_err().starts_with("4:2: JSON"));
        let pretty = "\n[ {\n \"address\": \"192.0.2.1\" } ]";
        assert_eq!(read(json, pretty), [Ok("0: 192.0.2.1".into())]);
        assert!(read(json, "[ {\n nonsense } ]")[0].as_ref().unwrap_err().starts_with("2:2"));
    }

    #[test]
    fn toml_tables() {
        let text = "[[host]]\naddress = \"192.0.2.1\"\nextruded-to = \"192.0.2.9\"\n\n[[host]]\nname = 3.5\n";
        let got = read(toml, text);
        assert_eq!(got[0], Ok("1: 192.0.2.1 192.0.2.9".into()));
        assert!(got[1].as_ref().unwrap_err().starts_with("5:1: name: expected a string"));
        assert!(read(toml, "x = [")[0].as_ref().unwrap_err().starts_with("1:"));
    }
}
