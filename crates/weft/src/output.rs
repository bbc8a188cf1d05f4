//! What people and programs read: tables, JSON, YAML, and one-line errors.

use crate::error::CommandError;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};

/// How answers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// The same as YAML.
    Yaml,
}

impl Format {
    /// What a command line asks for that could not be understood as a whole.
    pub(crate) fn wanted(args: impl Iterator<Item = String>) -> Self {
        let args: Vec<String> = args.collect();
        let mut wanted = Self::Table;
        for (at, arg) in args.iter().enumerate() {
            let value = match arg.as_str() {
                "--" => break,
                "-o" | "--output" => args.get(at + 1).map(String::as_str),
                glued => glued
                    .strip_prefix("--output=")
                    .or_else(|| glued.strip_prefix("-o").filter(|_| !glued.starts_with("--"))),
            };
            if let Some(format) = value.and_then(|v| Self::from_str(v.trim_start_matches('='), false).ok()) {
                wanted = format;
            }
        }
        wanted
    }
}

/// A column: its heading, and where in an object its value is (RFC 6901).
pub(crate) type Column = (&'static str, &'static str);

/// Writes to standard output. A reader that went away is not an error: `weft get tsis | head` ends well.
pub(crate) fn print(text: &str) -> Result<(), CommandError> {
    print_on(text).map(drop)
}

/// The same of one thing after the other; whether somebody reads it still.
pub(crate) fn print_on(text: &str) -> Result<bool, CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(CommandError::Write { path: "standard output".into(), source }),
        Ok(()) => Ok(true),
    }
}

/// A list, in the format asked for.
pub(crate) fn list<T: Serialize>(
    format: Format,
    items: &[T],
    columns: &[Column],
) -> Result<String, CommandError> {
    match format {
        Format::Table => {
            let rows: Vec<Value> = items.iter().map(to_value).collect::<Result<_, _>>()?;
            Ok(table(&rows, columns))
        }
        _ => document(format, &items),
    }
}

/// That something was done, in the format asked for.
pub(crate) fn done(format: Format, message: &weft_api::Message) -> Result<String, CommandError> {
    match format {
        Format::Table => Ok(format!("{}\n", message.message)),
        _ => document(format, message),
    }
}

/// One object, in the format asked for; as a table it has one row.
pub(crate) fn one<T: Serialize>(
    format: Format,
    item: &T,
    columns: &[Column],
) -> Result<String, CommandError> {
    match format {
        Format::Table => Ok(table(&[to_value(item)?], columns)),
        _ => document(format, item),
    }
}

/// One of many that come one by one: as a table a line of `text`, as JSON a line.
pub(crate) fn streamed<T: Serialize>(format: Format, item: &T, text: &str) -> Result<String, CommandError> {
    match format {
        Format::Table => Ok(format!("{text}\n")),
        Format::Json => {
            serde_json::to_string(item).map(|text| text + "\n").map_err(|e| CommandError::Show(e.to_string()))
        }
        Format::Yaml => Ok(format!("---\n{}", document(format, item)?)),
    }
}

fn document<T: Serialize>(format: Format, value: &T) -> Result<String, CommandError> {
    let failed = |e: &dyn std::fmt::Display| CommandError::Show(e.to_string());
    match format {
        Format::Yaml => serde_saphyr::to_string(value).map_err(|e| failed(&e)),
        _ => serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|e| failed(&e)),
    }
}

fn to_value<T: Serialize>(item: &T) -> Result<Value, CommandError> {
    serde_json::to_value(item).map_err(|e| CommandError::Show(e.to_string()))
}

fn table(rows: &[Value], columns: &[Column]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|(heading, _)| heading.to_uppercase()));
    for row in rows {
        table.add_row(columns.iter().map(|(_, at)| cell(row.pointer(at))));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()));
        text.push('\n');
    }
    text
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) => items.iter().map(|i| cell(Some(i))).collect::<Vec<_>>().join(","),
        // An EID: {"ip": "..."} or {"mac": "..."}.
        Some(Value::Object(fields)) => fields.values().map(|v| cell(Some(v))).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

/// Says something beside a table, on standard error.
pub(crate) fn note(format: Format, text: &str) {
    if matches!(format, Format::Table) {
        // What was to be done is done, whether this can be said or not.
        let _ = io::stderr().write_all(format!("note: {text}\n").as_bytes());
    }
}

/// Tells why a command failed, as one line or one JSON object, on standard error.
pub(crate) fn refuse(format: Format, error: &CommandError) {
    let message = weft_api::one_line(&error.to_string());
    let line = match format {
        Format::Table => format!("error: {message}\n"),
        _ => format!("{}\n", serde_json::json!({ "error": error.code(), "message": message })),
    };
    // Nothing is left to tell it to when this fails.
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_format_of_errors_is_known_before_the_rest() {
        let wanted = |line: &str| Format::wanted(line.split(' ').map(str::to_owned));
        assert_eq!(wanted("weft vn create red --vni 0 -o json"), Format::Json);
        assert_eq!(wanted("weft get nothing --output=yaml"), Format::Yaml);
        assert_eq!(wanted("weft get nothing -ojson"), Format::Json);
        assert_eq!(wanted("weft get nothing -o"), Format::Table);
        assert_eq!(wanted("weft lab exec red-a -- ls -o json"), Format::Table);
    }

    #[test]
    fn tables_show_every_kind_of_value() {
        let rows = [json!({"a": "x", "b": ["1", "2"], "c": {"ip": "10.0.0.1"}, "d": 7, "e": null})];
        let columns = [("a", "/a"), ("b", "/b"), ("c", "/c"), ("d", "/d"), ("e", "/e"), ("none", "/f")];
        let text = list(Format::Table, &rows, &columns).unwrap();
        let words: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [vec!["A", "B", "C", "D", "E", "NONE"], vec!["x", "1,2", "10.0.0.1", "7", "-", "-"]]
        );
        assert!(list(Format::Json, &rows, &columns).unwrap().contains("\"d\": 7"));
        assert!(list(Format::Yaml, &rows, &columns).unwrap().contains("d: 7"));
    }
}
