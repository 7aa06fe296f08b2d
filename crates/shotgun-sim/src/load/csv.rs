//! Reads comma-separated values: quoted cells, doubled quotes, line breaks in
//! quotes, a byte order mark.

/// Splits a text into rows of cells. Empty lines are left out.
///
/// # Errors
///
/// The line in which a quoted cell begins that never ends.
pub fn parse(text: &str) -> Result<Vec<Vec<String>>, usize> {
    let mut rows = Vec::new();
    let (mut row, mut cell) = (Vec::new(), String::new());
    let (mut quoted_since, mut line) = (None, 1);
    let mut letters = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(letter) = letters.next() {
        line += usize::from(letter == '\n');
        match (letter, quoted_since) {
            ('"', Some(_)) if letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            ('"', Some(_)) => quoted_since = None,
            ('"', None) if cell.is_empty() => quoted_since = Some(line),
            (',', None) => row.push(std::mem::take(&mut cell)),
            ('\r', None) if letters.peek() == Some(&'\n') => {}
            ('\n', None) => end_row(&mut rows, &mut row, &mut cell),
            (other, _) => cell.push(other),
        }
    }
    if let Some(since) = quoted_since {
        return Err(since);
    }
    end_row(&mut rows, &mut row, &mut cell);
    Ok(rows)
}

fn end_row(rows: &mut Vec<Vec<String>>, row: &mut Vec<String>, cell: &mut String) {
    row.push(std::mem::take(cell));
    let row = std::mem::take(row);
    if row.iter().any(|cell| !cell.is_empty()) {
        rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_may_hold_quotes_commas_and_line_breaks() {
        let rows = parse("\u{feff}id,code\r\n1,\"a, \"\"b\"\"\nc\"\n\n2,\n").expect("rows");
        assert_eq!(rows, [vec!["id", "code"], vec!["1", "a, \"b\"\nc"], vec!["2", ""]]);
        assert_eq!(parse("id\n\"never closed\n"), Err(2));
    }
}
