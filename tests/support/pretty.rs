//! JSON for people: what fits on a line stands on one.

use sockguard::json::Value;

const WIDTH: usize = 110;

/// The document, with a line's end.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, 0, &mut out);
    out.push('\n');
    out
}

fn write(value: &Value, depth: usize, before: usize, out: &mut String) {
    let line = on_one_line(value);
    let indent = "  ".repeat(depth + 1);
    if depth > 0 && indent.len() + before + line.chars().count() <= WIDTH {
        out.push_str(&line);
        return;
    }
    match value {
        Value::Object(object) if !object.is_empty() => {
            out.push('{');
            for (i, (key, member)) in object.iter().enumerate() {
                let key = Value::from(key).to_string();
                out.push_str(if i > 0 { ",\n" } else { "\n" });
                out.push_str(&format!("{indent}{key}: "));
                write(member, depth + 1, key.len() + 2, out);
            }
            out.push_str(&format!("\n{}}}", "  ".repeat(depth)));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ",\n" } else { "\n" });
                out.push_str(&indent);
                write(item, depth + 1, 0, out);
            }
            out.push_str(&format!("\n{}]", "  ".repeat(depth)));
        }
        _ => out.push_str(&line),
    }
}

fn on_one_line(value: &Value) -> String {
    match value {
        Value::Object(object) if !object.is_empty() => {
            let members: Vec<String> =
                object.iter().map(|(key, member)| format!("{}: {}", Value::from(key), on_one_line(member))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(on_one_line).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
