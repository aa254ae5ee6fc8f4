//! `/stats` as pages: one that shows the moment, one that follows it.

use std::fmt::Write;

use crate::home::{HEAD, choices};
use crate::query::QueryParams;

/// Follows the figures: asks for them again and again, and lists those first that changed last.
const SCRIPT: &str = r#"<script>
const seen = new Map();
const target = document.getElementById('figures');
const values = (stat) => 'value' in stat ? [[stat.name, String(stat.value)]] : [];
async function ask() {
  const query = new URLSearchParams(location.search);
  query.set('format', 'json');
  query.delete('histogram_buckets');
  const reply = await fetch('stats?' + query);
  const now = Date.now();
  for (const [name, value] of (await reply.json()).stats.flatMap(values)) {
    const known = seen.get(name);
    if (!known) seen.set(name, { value, at: 0, changes: 0 });
    else if (known.value !== value) seen.set(name, { value, at: now, changes: known.changes + 1 });
  }
  const rows = [...seen].sort(([a, x], [b, y]) => y.at - x.at || a.localeCompare(b)).map(([name, stat]) => {
    const row = document.createElement('tr');
    for (const text of [stat.changes || '', name, stat.value]) row.insertCell().textContent = text;
    return row;
  });
  target.replaceChildren(...rows);
}
const follow = () => ask().catch(() => {}).finally(() => setTimeout(follow, 2000));
follow();
</script>
"#;

/// A page of figures as they are, given as text.
pub(crate) fn fixed(query: &QueryParams, text: &str) -> String {
    let mut out = form(query);
    out.push_str("<pre>\n");
    escape(text, &mut out);
    out.push_str("</pre>\n</body>\n</html>\n");
    out
}

/// A page that follows the figures.
pub(crate) fn active(query: &QueryParams) -> String {
    let mut out = form(query);
    out.push_str(
        "<table>\n<thead><tr><th>changes<th>name<th>value</thead>\n<tbody id='figures'></tbody>\n</table>\n",
    );
    out.push_str(SCRIPT);
    out.push_str("</body>\n</html>\n");
    out
}

/// The beginning of a page, with the form that asks for another one, filled in as this one was asked for.
fn form(query: &QueryParams) -> String {
    let mut out = HEAD.replace("{title}", "Statistics");
    out.push_str("<p><a href='./'>all commands</a></p>\n<form action='stats' method='get'>\n");
    for name in ["usedonly", "invert_filter"] {
        let checked = if query.has(name) { " checked" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<label>{name} <input type='checkbox' name='{name}'{checked}></label>");
    }
    out.push_str("<label>filter <input name='filter' value='");
    escape(query.get("filter").unwrap_or_default(), &mut out);
    out.push_str("'></label>\n");
    for (name, values) in choices("/stats") {
        let _ = write!(out, "<label>{name} <select name='{name}'>");
        let chosen = query.non_empty(name);
        for value in values {
            let selected = if chosen == Some(value) { " selected" } else { "" };
            let _ = write!(out, "<option{selected}>{value}</option>");
        }
        out.push_str("</select></label>\n");
    }
    out.push_str("<button>show</button>\n</form>\n");
    out
}

/// Appends a text so that a browser shows it as it is.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixed;
    use crate::query::QueryParams;

    #[test]
    fn what_was_asked_for_is_filled_in_and_nothing_becomes_markup() {
        let query = QueryParams::parse("usedonly&filter=%27%3Cb%3E&type=Gauges&format=html");
        let page = fixed(&query, "a<b>: 1\n");
        for part in [
            "name='usedonly' checked>",
            "name='invert_filter'>",
            "value='&#39;&lt;b&gt;'",
            "<option selected>Gauges</option>",
            "<option selected>html</option>",
            "<pre>\na&lt;b&gt;: 1\n</pre>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
