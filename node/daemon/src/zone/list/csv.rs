//! Comma-separated values (RFC 4180), with the column of every field.

use std::io::{BufRead, Read as _};

use super::{COLUMNS, Field, Row, RowError};

/// Rows of a CSV file. The first line may name the columns; without it they are in the order of
/// [`COLUMNS`]. Empty lines and lines that start with `#` are skipped.
pub(super) struct Rows {
    input: Box<dyn BufRead>,
    line: u32,
    text: Vec<u8>,
    /// For each column of the file, which of ours it is.
    order: Vec<usize>,
    started: bool,
    broken: bool,
}

impl Rows {
    pub(super) fn new(input: Box<dyn BufRead>) -> Self {
        let order = (0..COLUMNS.len()).collect();
        Self { input, line: 0, text: Vec::new(), order, started: false, broken: false }
    }

    fn read_line(&mut self) -> Result<bool, RowError> {
        self.text.clear();
        self.line = self.line.saturating_add(1);
        let error = |what: String| RowError { line: self.line, column: 1, what };
        let mut limited = (&mut self.input).take(MAX_LINE);
        let read = match limited.read_until(b'\n', &mut self.text) {
            Ok(read) => read,
            Err(e) => {
                self.broken = true;
                return Err(error(format!("cannot be read: {e}")));
            }
        };
        if u64::try_from(read).unwrap_or(0) == MAX_LINE && self.text.last() != Some(&b'\n') {
            let _ = self.input.skip_until(b'\n');
            return Err(error(format!("line of more than {MAX_LINE} octets")));
        }
        Ok(read > 0)
    }

    fn row(&self) -> Result<Row, RowError> {
        let mut row = Row { line: self.line, ..Row::default() };
        let text = std::str::from_utf8(&self.text).map_err(|e| RowError {
            line: self.line,
            column: u32::try_from(e.valid_up_to() + 1).unwrap_or(u32::MAX),
            what: "expected UTF-8".to_owned(),
        })?;
        for (at, field) in
            split(text.trim_end_matches(['\r', '\n']), self.line)?.into_iter().enumerate()
        {
            let Some(&column) = self.order.get(at) else {
                let what = format!("expected {} fields, found more", self.order.len());
                return Err(RowError { line: field.line, column: field.column, what });
            };
            if let Some(slot) = row.fields.get_mut(column).filter(|_| !field.text.is_empty()) {
                *slot = Some(field);
            }
        }
        Ok(row)
    }

    /// True if the line in hand names columns.
    fn header(&mut self) -> Result<bool, RowError> {
        let Ok(text) = std::str::from_utf8(&self.text) else { return Ok(false) };
        let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        let fields = split(text, self.line)?;
        let known = |f: &Field| COLUMNS.iter().position(|c| f.text.eq_ignore_ascii_case(c));
        if !fields.iter().any(|f| known(f).is_some()) {
            return Ok(false);
        }
        self.order = Vec::with_capacity(fields.len());
        for field in &fields {
            let column = known(field).ok_or_else(|| RowError {
                line: field.line,
                column: field.column,
                what: format!("column \"{}\": expected one of {}", field.text, COLUMNS.join(", ")),
            })?;
            self.order.push(column);
        }
        Ok(true)
    }
}

impl Iterator for Rows {
    type Item = Result<Row, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.broken {
            match self.read_line() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => return Some(Err(e)),
            }
            let start = self.text.trim_ascii_start();
            if start.is_empty() || start.starts_with(b"#") {
                continue;
            }
            if !std::mem::replace(&mut self.started, true) {
                match self.header() {
                    Ok(true) => continue,
                    Ok(false) => {}
                    // Without knowing the columns no line can be understood.
                    Err(e) => {
                        self.broken = true;
                        return Some(Err(e));
                    }
                }
            }
            return Some(self.row());
        }
        None
    }
}

fn split(text: &str, line: u32) -> Result<Vec<Field>, RowError> {
    let mut fields = Vec::with_capacity(COLUMNS.len());
    let mut rest = text;
    let mut at = 0;
    loop {
        let column = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let error = |what: &str| RowError { line, column, what: what.to_owned() };
        let used = if let Some(quoted) = rest.strip_prefix('"') {
            let (text, used) =
                unquote(quoted).ok_or_else(|| error("quotation mark is never closed"))?;
            fields.push(Field { text, line, column });
            used + 1
        } else {
            let used = rest.find(',').unwrap_or(rest.len());
            let text = rest.get(..used).unwrap_or("").trim().to_owned();
            fields.push(Field { text, line, column });
            used
        };
        let tail = rest.get(used..).unwrap_or("");
        match tail.strip_prefix(',') {
            Some(next) => {
                at += used + 1;
                rest = next;
            }
            None if tail.is_empty() => return Ok(fields),
            None => return Err(error("expected a comma after the closing quotation mark")),
        }
    }
}

/// What stands before the closing quotation mark, doubled ones inside, and how long that was with
/// the mark.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        let mark = rest.find('"')?;
        inner.push_str(rest.get(..mark)?);
        at += mark + 1;
        if !text.get(at..)?.starts_with('"') {
            return Some((inner, at));
        }
        inner.push('"');
        at += 1;
    }
}

/// A key of 8192 bits in base 64 has 1370 characters.
const MAX_LINE: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = Vec<(usize, String, u32)>;

    fn rows(text: &str) -> Vec<Result<Fields, (u32, u32, String)>> {
        let input = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        Rows::new(input)
            .map(|row| {
                row.map_err(|e| (e.line, e.column, e.what)).map(|row| {
                    let fields = row.fields.into_iter().enumerate();
                    fields.filter_map(|(i, f)| f.map(|f| (i, f.text, f.column))).collect()
                })
            })
            .collect()
    }

    #[test]
    fn columns_by_name_or_by_place() {
        let named = rows("name, address\n\"a \"\"b\"\"\",192.0.2.1\n");
        let expected = vec![(0, "192.0.2.1".to_owned(), 11), (1, "a \"b\"".to_owned(), 1)];
        assert_eq!(named, [Ok(expected)]);
        let placed = rows("# customers\n\n192.0.2.1,a.example,,AwEAA\r\n");
        assert_eq!(placed[0].as_ref().unwrap()[2], (3, "AwEAA".to_owned(), 22));
    }

    #[test]
    fn faults_have_a_place() {
        let got = rows("address,name\n1,2,3\n\"x\n\"x\"y,z\nok,ok\n");
        assert_eq!(got[0], Err((2, 5, "expected 2 fields, found more".to_owned())));
        assert_eq!(got[1], Err((3, 1, "quotation mark is never closed".to_owned())));
        assert_eq!(got[2].as_ref().unwrap_err().0, 4);
        assert!(got[3].is_ok());
        let got = rows("address,nmae\n1,2\n");
        assert_eq!(got.len(), 1);
        assert!(got[0].as_ref().unwrap_err().2.starts_with("column \"nmae\""));
    }
}
