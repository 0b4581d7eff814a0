use proptest::prelude::*;

use super::*;

fn texts(errors: &[TemplateError]) -> String {
    errors.iter().map(|error| error.message.clone()).collect::<Vec<_>>().join("; ")
}

#[test]
fn values_leave_the_text_and_every_element_has_a_name() {
    let template = Template::parse(
        "nvrsrc name=src uri=${uri} max-fps=${max_fps}\n ! queue leaky=downstream ! video/x-raw,width=4 ! \
         nvrinfer model = \"${dir}/x y.onnx\" ! queue ! fakesink sync=false",
    )
    .unwrap();
    assert_eq!(
        template.description.split_whitespace().collect::<Vec<_>>().join(" "),
        "nvrsrc name=src ! queue name=queue-0 leaky=downstream ! video/x-raw,width=4 ! nvrinfer name=nvrinfer-0 ! \
         queue name=queue-1 ! fakesink name=fakesink-0 sync=false"
    );
    let bindings: Vec<_> =
        template.bindings().map(|(e, a)| (e.name.as_str(), a.key.as_str(), a.value.clone())).collect();
    assert_eq!(
        bindings,
        [
            ("src", "uri", vec![Piece::Param("uri".into())]),
            ("src", "max-fps", vec![Piece::Param("max_fps".into())]),
            ("nvrinfer-0", "model", vec![Piece::Param("dir".into()), Piece::Text("/x y.onnx".into())]),
        ]
    );
    assert!(template.links.is_empty());
}

#[test]
fn a_link_into_the_shared_graph_is_taken_out() {
    let template =
        Template::parse("videotestsrc ! tee name=t ! queue ! mix.sink_%u t. ! queue ! fakesink").unwrap();
    assert_eq!(
        template.links,
        [SharedLink {
            from: "queue-0".into(),
            to: "mix".into(),
            pad: Some("sink_%u".into()),
            assignments: Vec::new(),
            offset: 36
        }]
    );
    assert!(!template.description.contains("mix"), "{}", template.description);
    assert!(template.description.contains("t. ! queue name=queue-1 ! fakesink"));
}

#[test]
fn what_stands_after_such_a_link_belongs_to_the_pad() {
    let template =
        Template::parse("src name=a ! mix.sink_%u label=${name} alpha=0.5\n a. ! queue ! mix. zorder=2")
            .unwrap();
    let found: Vec<_> = template
        .links
        .iter()
        .map(|link| (link.from.as_str(), link.assignments.iter().map(|a| a.key.as_str()).collect::<Vec<_>>()))
        .collect();
    assert_eq!(found, [("a", vec!["label", "alpha"]), ("queue-0", vec!["zorder"])]);
    assert_eq!(template.links[0].assignments[0].value, [Piece::Param("name".into())]);
    for gone in ["label", "alpha", "zorder", "mix"] {
        assert!(!template.description.contains(gone), "{}", template.description);
    }
    let errors = Template::parse("tee name=t ! fakesink t. alpha=1 ! queue ! fakesink").unwrap_err();
    assert!(texts(&errors).contains("only a pad of the shared graph"), "{}", texts(&errors));
}

#[test]
fn what_cannot_be_understood_is_an_error_with_its_place() {
    for (launch, offset, part) in [
        ("", 0, "no element"),
        ("${x} ! fakesink", 0, "only where a property value stands"),
        ("fakesrc ! ${x}", 10, "only where a property value stands"),
        ("fakesrc ${key}=1 ! fakesink", 8, "only where a property value stands"),
        ("fakesrc ! video/x-raw,width=${w} ! fakesink", 28, "only where a property value stands"),
        ("fake${x}src ! fakesink", 4, "only where a property value stands"),
        ("fakesrc name=${x} ! fakesink", 8, "name cannot come from a parameter"),
        ("fakesrc name=a ! fakesink name=a", 17, "two elements are named"),
        ("fakesrc child::x=${x} ! fakesink", 8, "child element"),
        ("num-buffers=3 fakesrc", 0, "no element stands before"),
        ("fakesrc ! fakesink location=\"a", 28, "never closed"),
        ("fakesrc ! fakesink location=\"a\"b", 31, "a space is missing"),
        ("fakesrc ! fakesink location=${a", 28, "never closed"),
        ("fakesrc ! fakesink location=${a-b}", 28, "letters, digits"),
        ("fakesrc num-buffers= ! fakesink", 8, "a value is missing"),
        ("fakesrc ! \"fakesink\"", 10, "right after '='"),
        ("tea. ! fakesink", 0, "only \"! tea.\""),
        ("fakesrc ! tee name=tee tee1. ! fakesink", 23, "did you mean \"tee\""),
        ("fakesrc ! video/x-raw ! mix.", 24, "put an element"),
        ("fakesrc\0", 7, "NUL"),
    ] {
        let errors = Template::parse(launch).expect_err(launch);
        assert!(
            errors.iter().any(|e| e.offset == offset && e.message.contains(part)),
            "{launch}: {errors:?}"
        );
    }
}

#[test]
fn several_errors_are_found_at_once() {
    let errors = Template::parse("a=1 fakesrc name=${x} ! fakesink child::y=${z}").unwrap_err();
    assert_eq!(errors.len(), 3, "{}", texts(&errors));
}

#[test]
fn escapes_are_those_of_gst_launch() {
    let pieces = parse_pieces(r"a\ b\${c}${d}\\", true).unwrap();
    assert_eq!(pieces, [Piece::Text("a b${c}".into()), Piece::Param("d".into()), Piece::Text("\\".into())]);
    assert_eq!(parse_pieces("", true).unwrap(), [Piece::Text(String::new())]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(launch in ".{0,200}") {
        let _ = Template::parse(&launch);
    }

    /// Launch strings made of what they are made of: what survives holds no parameter.
    #[test]
    fn the_description_never_holds_a_parameter(
        words in proptest::collection::vec(
            prop_oneof![
                Just("fakesrc"), Just("!"), Just("a=${x}"), Just("b=\"${x} y\""), Just("c='${x}'"), Just("mix."),
                Just("name=n"), Just("video/x-raw,width=1"), Just("${x}"), Just("d=\\\"${x}"), Just("e="), Just("("),
                Just(")"), Just("queue"), Just("f=${x}!"), Just("\"${x}\"")
            ],
            0..14,
        )
    ) {
        if let Ok(template) = Template::parse(&words.join(" ")) {
            prop_assert!(!template.description.contains("${"), "{}", template.description);
            let names: BTreeSet<_> = template.elements.iter().map(|e| &e.name).collect();
            prop_assert_eq!(names.len(), template.elements.len());
        }
    }
}
