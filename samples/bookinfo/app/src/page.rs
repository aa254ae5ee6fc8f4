//! The HTML of the product page service.

use std::fmt::Write as _;

use http::StatusCode;
use serde_json::Value;

use crate::productpage::{DESCRIPTION, Part, TITLE};
use crate::settings::Settings;

const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{margin:0 auto;max-width:62rem;padding:0 1rem 3rem}\
header{display:flex;justify-content:space-between;align-items:center;border-bottom:1px solid #8886;padding:.8rem 0}\
header form{display:flex;gap:.4rem}h1{margin:1.4rem 0 .2rem}main{display:grid;grid-template-columns:1fr 2fr;gap:2rem}\
th{text-align:left;padding-right:1rem}blockquote{margin:0 0 1.2rem;border-left:3px solid #8886;padding-left:1rem}\
.stars{font-size:1.3rem;letter-spacing:.1em}.error{color:#c33}footer{color:#888;margin-top:.3rem}code{font-size:.9em}";

/// Stars that a review can have.
const MOST_STARS: i64 = 5;

/// The start page: what the application is made of.
pub(crate) fn index(settings: &Settings) -> String {
    let mut body = String::from(
        "<h1>Bookinfo</h1><p>A page that four services make together.</p>\
         <p><a href=\"/productpage?u=normal\">Normal user</a> &middot; <a href=\"/productpage?u=test\">Test user</a></p>\
         <table><tr><th>Service</th><th>Called at</th></tr>",
    );
    for (service, base) in
        [("details", &settings.details), ("reviews", &settings.reviews), ("ratings", &settings.ratings)]
    {
        push(&mut body, format_args!("<tr><td>{service}</td><td><code>{}</code></td></tr>", Escaped(base)));
    }
    body.push_str("</table>");
    document(&body)
}

/// The page about the product, as `user` sees it.
pub(crate) fn product(user: Option<&str>, details: &Part, reviews: &Part) -> String {
    let mut body = String::new();
    sign_in(&mut body, user);
    push(&mut body, format_args!("<h1>{TITLE}</h1><p>{DESCRIPTION}</p><main><section>"));
    details_section(&mut body, details);
    body.push_str("</section><section>");
    reviews_section(&mut body, reviews);
    body.push_str("</section></main>");
    document(&body)
}

fn sign_in(body: &mut String, user: Option<&str>) {
    body.push_str("<header><a href=\"/productpage\">BookInfo Sample</a>");
    match user {
        Some(user) => push(
            body,
            format_args!("<span>{} (<a href=\"/logout\">sign out</a>)</span>", Escaped(user)),
        ),
        None => body.push_str(
            "<form method=\"post\" action=\"/login\"><input name=\"username\" placeholder=\"User name\" aria-label=\"User name\">\
             <input name=\"passwd\" type=\"password\" placeholder=\"Password\" aria-label=\"Password\"><button>Sign in</button></form>",
        ),
    }
    body.push_str("</header>");
}

fn details_section(body: &mut String, details: &Part) {
    if details.status != StatusCode::OK {
        error(body, "Error fetching product details!", details);
        return;
    }
    body.push_str("<h2>Book Details</h2><table>");
    for (label, field) in [
        ("Type", "type"),
        ("Pages", "pages"),
        ("Publisher", "publisher"),
        ("Language", "language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ] {
        let value = plain(&details.body[field]);
        push(body, format_args!("<tr><th>{label}:</th><td>{}</td></tr>", Escaped(&value)));
    }
    body.push_str("</table>");
}

fn reviews_section(body: &mut String, reviews: &Part) {
    if reviews.status != StatusCode::OK {
        error(body, "Error fetching product reviews!", reviews);
        return;
    }
    body.push_str("<h2>Book Reviews</h2>");
    for review in reviews.body["reviews"].as_array().map_or(&[][..], Vec::as_slice) {
        push(body, format_args!("<blockquote><p>{}</p>", Escaped(&plain(&review["text"]))));
        rating(body, &review["rating"]);
        push(body, format_args!("<footer>{}</footer></blockquote>", Escaped(&plain(&review["reviewer"]))));
    }
    push(
        body,
        format_args!(
            "<p>Reviews served by:<br><code id=\"podname\">{}</code>",
            Escaped(&plain(&reviews.body["podname"]))
        ),
    );
    if let Some(cluster) = reviews.body["clustername"].as_str().filter(|cluster| *cluster != "null") {
        push(body, format_args!(" on cluster <code>{}</code>", Escaped(cluster)));
    }
    body.push_str("</p>");
}

fn rating(body: &mut String, rating: &Value) {
    if let Some(stars) = rating["stars"].as_i64() {
        let stars = stars.clamp(0, MOST_STARS);
        let color = plain(&rating["color"]);
        push(
            body,
            format_args!("<font color=\"{}\" class=\"stars\" title=\"{stars} of 5\">", Escaped(&color)),
        );
        for star in 0..MOST_STARS {
            body.push_str(if star < stars { "&#9733;" } else { "&#9734;" });
        }
        body.push_str("</font>");
    } else if let Some(message) = rating["error"].as_str() {
        push(body, format_args!("<p class=\"error\"><i>{}</i></p>", Escaped(message)));
    }
}

fn error(body: &mut String, title: &str, part: &Part) {
    let message = plain(&part.body["error"]);
    push(body, format_args!("<h2 class=\"error\">{title}</h2><p>{}</p>", Escaped(&message)));
}

/// A JSON value as text to read: strings without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn document(body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>Simple Bookstore App</title>\n<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
}

fn push(body: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = body.write_fmt(text);
}

/// Text inside HTML.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ok(body: Value) -> Part {
        Part { status: StatusCode::OK, body }
    }

    #[test]
    fn stars_have_the_colour_of_the_version_and_the_pod_is_named() {
        let reviews = ok(json!({"podname": "reviews-v3-x", "clustername": "null", "reviews": [
            {"reviewer": "Reviewer1", "text": "a", "rating": {"stars": 4, "color": "red"}}]}));
        let page = product(None, &ok(json!({"pages": 200})), &reviews);
        assert!(page.contains("<font color=\"red\""), "{page}");
        assert_eq!(page.matches("&#9733;").count(), 4);
        assert_eq!(page.matches("&#9734;").count(), 1);
        assert!(page.contains("reviews-v3-x"));
        assert!(!page.contains("on cluster"));
        assert!(page.contains("<td>200</td>"));
    }

    #[test]
    fn without_ratings_there_are_no_stars() {
        let reviews = ok(json!({"reviews": [{"reviewer": "Reviewer1", "text": "a"}]}));
        let page = product(None, &ok(json!({})), &reviews);
        assert!(!page.contains("&#9733;") && !page.contains("<font"), "{page}");
    }

    #[test]
    fn text_is_escaped() {
        let page = product(Some("<b>\"&'"), &ok(json!({})), &ok(json!({})));
        assert!(page.contains("&lt;b&gt;&quot;&amp;&#39;"), "{page}");
    }

    #[test]
    fn unavailable_parts_say_so() {
        let part =
            |message: &str| Part { status: StatusCode::SERVICE_UNAVAILABLE, body: json!({"error": message}) };
        let page = product(None, &part("no details"), &part("no reviews"));
        assert!(page.contains("Error fetching product details!") && page.contains("no details"), "{page}");
        assert!(page.contains("Error fetching product reviews!") && page.contains("no reviews"), "{page}");
    }
}
