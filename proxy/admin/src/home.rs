//! The overview of commands, as text and as a page.

use std::fmt::Write;

use crate::commands::{COMMANDS, Command};
use crate::reply::Reply;

/// The beginning of a page; `{title}` stands for what it is about.
pub(crate) const HEAD: &str = "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<title>{title}</title>\n<style>\n\
    body { font-family: sans-serif; }\ntd, th { padding: 4px 12px 4px 0; vertical-align: top; text-align: left; }\n\
    </style>\n</head>\n<body>\n<h1>{title}</h1>\n";

/// The parameters of a command that have a few values to choose from, with these.
pub(crate) fn choices(path: &str) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let params =
        COMMANDS.iter().filter(move |command| command.path == path).flat_map(|command| command.params);
    params.filter(|param| !param.choices.is_empty()).map(|param| (param.name, param.choices))
}

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
    let mut out = HEAD.replace("{title}", "Proxy admin");
    out.push_str("<table>\n");
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
