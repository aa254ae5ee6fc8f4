//! The overview of commands, as text and as a page.

use std::fmt::Write;

use crate::commands::{COMMANDS, Command};
use crate::reply::Reply;

/// The overview as text.
pub(crate) fn help() -> String {
    let mut out = "admin commands are:\n".to_owned();
    // Writing to a String cannot fail.
    for command in COMMANDS {
        let post = if command.post { " (POST)" } else { "" };
        let _ = writeln!(out, "  {}{post}: {}", command.path, command.help);
        for param in command.params {
            let _ = write!(out, "      {}: {}", param.name, param.help);
            if !param.choices.is_empty() {
                let _ = write!(out, "; One of ({})", param.choices.join(", "));
            }
            out.push('\n');
        }
    }
    out
}

/// The overview as a page with links and forms.
pub(crate) fn page() -> Reply {
    let mut out = "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<title>Proxy admin</title>\n<style>\n\
                   body { font-family: sans-serif; }\ntd { padding: 4px 12px 4px 0; vertical-align: top; }\n\
                   </style>\n</head>\n<body>\n<h1>Proxy admin</h1>\n<table>\n"
        .to_owned();
    for command in COMMANDS.iter().filter(|command| command.path != "/") {
        row(command, &mut out);
    }
    out.push_str("</table>\n</body>\n</html>\n");
    Reply::html(out)
}

fn row(command: &Command, out: &mut String) {
    let name = &command.path[1..];
    let method = if command.post { "post" } else { "get" };
    let _ = writeln!(out, "<tr><td><form action='{name}' method='{method}'><button>{name}</button>");
    for param in command.params {
        let _ = write!(out, "<div><label title='{}'>{} ", param.help, param.name);
        if param.is_flag() {
            let _ = write!(out, "<input type='checkbox' name='{}'>", param.name);
        } else if param.choices.is_empty() {
            let _ = write!(out, "<input name='{}'>", param.name);
        } else {
            let _ = write!(out, "<select name='{}'>", param.name);
            for choice in param.choices {
                let _ = write!(out, "<option>{choice}</option>");
            }
            out.push_str("</select>");
        }
        out.push_str("</label></div>\n");
    }
    let _ = writeln!(out, "</form></td><td>{}</td></tr>", command.help);
}
