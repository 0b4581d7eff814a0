use super::*;

const HEAD: &str = "summary = \"s\"\nkind = \"k\"\n";

fn problems(text: &str) -> Vec<(usize, String)> {
    let problems = Graph::parse("g.toml", text).expect_err("problems");
    problems.list.into_iter().map(|problem| (problem.line.unwrap_or(0), problem.message)).collect()
}

#[test]
fn every_shipped_graph_is_right() {
    for shipped in SHIPPED {
        let graph = Graph::load(shipped.name).unwrap_or_else(|error| panic!("{}: {error}", shipped.name));
        assert_eq!(graph.name, shipped.name);
        let fragments = Values::new();
        for section in graph.camera.iter().chain(&graph.shared) {
            graph.template(section, &fragments).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

#[test]
fn problems_name_the_line_and_the_nearest_name() {
    let text = format!(
        "{HEAD}summry = 1\n[params.a]\ntype = \"strng\"\nhelp = \"h\"\n[params.b]\ntype = \"int\"\nmin = 9\nmax = 1\n\
         default = \"x\"\nhelp = \"h\"\nlvie = true\n[params.c]\ntype = \"enum\"\nhelp = \"h\"\n[params.d]\ntype = \
         \"string\"\ndefault = \"${{e}}\"\nscope = \"world\"\nhelp = \"h\"\n[params.config]\ntype = \"string\"\nmin = 1\n\
         [camera]\nlaunch = \"fakesrc x=${{b}} y=${{d}} ! fakesink\"\nlunch = 1\n"
    );
    let found = problems(&text);
    for (line, part) in [
        (
            3,
            "a graph file has no key \"summry\"; it takes summary, kind, params, camera, graph; did you mean \"summary\"?",
        ),
        (5, "type \"strng\" is not one of"),
        (7, "min 9 is above max 1"),
        (11, "default: b must be a whole number"),
        (13, "did you mean \"live\"?"),
        (14, "needs values"),
        (17, "parameter \"e\" is not declared"),
        (20, "\"scope\" must be instance or camera"),
        (22, "launcher's own"),
        (22, "needs help"),
        (22, "never used"),
        (24, "\"min\" belongs to int and float"),
        (27, "[camera] has no key \"lunch\""),
    ] {
        assert!(
            found.iter().any(|(at, message)| *at == line && message.contains(part)),
            "{line} {part}: {found:#?}"
        );
    }
}

#[test]
fn no_parameter_takes_a_variable_that_means_something_else() {
    for name in ["log", "data_dir"] {
        let text = format!(
            "{HEAD}[params.{name}]\ntype = \"string\"\nhelp = \"h\"\n[camera]\nlaunch = \"fakesrc x=${{{name}}}\"\n"
        );
        assert!(problems(&text)[0].1.contains("launcher's own"), "{name}");
    }
}

#[test]
fn defaults_may_not_go_in_a_circle_or_leave_their_scope() {
    let text = format!(
        "{HEAD}[params.a]\ntype = \"string\"\ndefault = \"${{b}}\"\nhelp = \"h\"\n[params.b]\ntype = \"string\"\ndefault = \
         \"x${{a}}\"\nhelp = \"h\"\n[params.c]\ntype = \"string\"\ndefault = \"${{source_id}}\"\nhelp = \"h\"\n\
         [params.pw]\ntype = \"secret\"\nhelp = \"h\"\n[params.u]\ntype = \"string\"\ndefault = \"${{pw}}\"\nhelp = \"h\"\n\
         [graph]\nlaunch = \"fakesrc a=${{a}} c=${{c}} u=${{u}} ! fakesink\"\n"
    );
    let found = problems(&text);
    for (line, part) in [
        (3, "depends on itself"),
        (7, "depends on itself"),
        (11, "only in a camera branch"),
        (18, "shows the secret \"pw\""),
    ] {
        assert!(
            found.iter().any(|(at, message)| *at == line && message.contains(part)),
            "{line} {part}: {found:#?}"
        );
    }
}

#[test]
fn template_errors_point_into_the_file() {
    let text = format!(
        "{HEAD}[camera]\nlaunch = \"\"\"\n  fakesrc\n  ! fakesink x=${{sorce_name}} ${{y}}\n\"\"\"\n"
    );
    let graph = Graph::parse("g.toml", &text).unwrap();
    let section = graph.camera.clone().unwrap();
    let error = graph.template(&section, &Values::new()).unwrap_err();
    assert_eq!(error.list[0].line, Some(6), "{error}");
    let text = text.replace(" ${y}", "");
    let graph = Graph::parse("g.toml", &text).unwrap();
    let error = graph.template(&graph.camera.clone().unwrap(), &Values::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "g.toml:6: parameter \"sorce_name\" is not declared; did you mean \"source_name\"?"
    );
}

#[test]
fn fragments_are_text_and_may_hold_parameters() {
    let text = format!(
        "{HEAD}[params.extra]\ntype = \"fragment\"\ndefault = \"identity silent=${{quiet}} !\"\nhelp = \"h\"\n\
         [params.quiet]\ntype = \"bool\"\ndefault = true\nhelp = \"h\"\n\
         [camera]\nlaunch = \"fakesrc ! ${{extra}} fakesink\"\n"
    );
    let graph = Graph::parse("g.toml", &text).unwrap();
    let fragments = Values::from([("extra".into(), Value::Text("identity silent=${quiet} !".into()))]);
    let template = graph.template(&graph.camera.clone().unwrap(), &fragments).unwrap();
    assert_eq!(template.elements.len(), 3);
    assert_eq!(template.bindings().count(), 1);
}

#[test]
fn what_commands_may_give_is_declared_and_no_free_text_by_default() {
    for (kind, more, remote) in [
        ("int", "", Some(true)),
        ("bool", "", Some(true)),
        ("enum", "values = [\"a\"]\n", Some(true)),
        ("string", "", Some(false)),
        ("uri", "", Some(false)),
        ("secret", "", Some(false)),
        ("fragment", "", Some(false)),
        ("string", "remote = true\n", Some(true)),
        ("int", "remote = false\n", Some(false)),
        ("fragment", "remote = true\n", None),
        ("choice", "remote = true\nchoices = { a = \"identity !\" }\n", None),
    ] {
        let text = format!(
            "{HEAD}[params.x]\ntype = \"{kind}\"\n{more}help = \"h\"\n\
             [camera]\nlaunch = \"fakesrc a=${{x}} ! fakesink\"\n"
        );
        let found = Graph::parse("g.toml", &text);
        assert_eq!(found.as_ref().ok().map(|graph| graph.params[0].remote), remote, "{kind} {more}");
        if let Err(error) = found {
            assert!(error.to_string().contains("cannot be remote"), "{error}");
        }
    }
}

#[test]
fn in_shipped_graphs_commands_give_no_path_no_address_but_the_cameras_and_no_program() {
    for shipped in SHIPPED {
        let graph = Graph::parse(shipped.name, shipped.text).unwrap();
        let texts = graph.params.iter().filter(|param| {
            param.remote
                && !matches!(
                    param.kind,
                    Kind::Int { .. } | Kind::Float { .. } | Kind::Bool | Kind::Enum { .. }
                )
        });
        for param in texts {
            assert!(
                ["uri", "model", "classes", "motion_masks", "zones", "label"].contains(&param.name.as_str()),
                "{}: {}",
                shipped.name,
                param.name
            );
        }
    }
}

#[test]
fn unknown_graphs_and_broken_toml_are_errors() {
    let message = Graph::load("procesor").unwrap_err().to_string();
    assert!(message.contains("did you mean \"processor\"?"), "{message}");
    assert!(problems("summary = ")[0].1.contains("not valid TOML"));
    assert!(problems(HEAD)[0].1.contains("neither [camera] nor [graph]"));
}
