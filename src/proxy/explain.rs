//! A decision in words, with what to change.

use std::fmt::Write;

use serde_json::{Value, json};

use super::decide::{Asked, Decision, Serve};

/// Returns a decision as a person reads it; `request` is `None` when the text was
/// no request at all.
pub fn words(asked: Option<&Asked>, decision: &Decision) -> String {
    let mut text = match asked {
        Some(asked) => format!("{}\n", subject(asked)),
        None => "a text that is no request\n".to_owned(),
    };
    match decision {
        Decision::Serve(serve) => {
            let _ = write!(text, "  answered from the cache{}", served(serve));
        }
        Decision::Pass(pass) => {
            let _ = write!(text, "  goes to the site: {}\n  {}", pass.reason, pass.detail);
            if let Some(advice) = &pass.advice {
                let _ = write!(text, "\n  to answer it next time: {advice}");
            }
        }
    }
    text
}

fn served(serve: &Serve) -> String {
    match serve {
        Serve::Info => ", with the site's own values".to_owned(),
        Serve::Schema => ", once it was read through the proxy".to_owned(),
        Serve::Read(plan) => {
            let as_of = format!(", as of {}\n  filter: {}", plan.fresh_as_of.timestamp(), plan.question.query.filter);
            match plan.question.addresses.as_slice() {
                [] => as_of,
                fields => {
                    let fields = fields.join("`, `");
                    format!(
                        "{as_of}\n  unless a row has an address that expires in `{fields}` and was not read lately: then the site \
                        answers"
                    )
                }
            }
        }
        Serve::Summarize(plan) => {
            format!(", as of {}\n  filter: {}", plan.fresh_as_of.timestamp(), plan.question.query.filter)
        }
    }
}

fn subject(asked: &Asked) -> String {
    let ty = asked.request.argument.get("type").and_then(Value::as_str);
    ty.map_or_else(|| asked.request.method.clone(), |ty| format!("{} {ty}", asked.request.method))
}

/// Returns a decision as a program reads it.
pub fn document(decision: &Decision) -> Value {
    let (query, fresh_as_of) = match decision {
        Decision::Serve(serve) => match &**serve {
            Serve::Read(plan) => (&plan.question.query, plan.fresh_as_of),
            Serve::Summarize(plan) => (&plan.question.query, plan.fresh_as_of),
            Serve::Info | Serve::Schema => return json!({"decision": "serve"}),
        },
        Decision::Pass(pass) => {
            let advice = pass.advice.as_ref().map(ToString::to_string);
            return json!({
                "decision": "pass", "reason": pass.reason.as_str(), "detail": pass.detail, "advice": advice,
            });
        }
    };
    json!({"decision": "serve", "fresh_as_of": fresh_as_of.timestamp(), "filter": query.filter.to_string()})
}
