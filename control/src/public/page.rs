//! A status page and the list of pages as HTML, complete without script.

use askama::Template;

use super::{
    index::IndexView,
    script::SCRIPT,
    style::STYLE,
    view::{ComponentView, DayView, IncidentView, PageView},
    words::{Shown as _, Tone},
};

/// The page as a whole document.
pub fn render(view: &PageView) -> Result<String, askama::Error> {
    PageHtml {
        view,
        active: view.active(),
        past: view.past(),
        blank_incident: &IncidentView::blank(),
        blank_component: &ComponentView::blank(),
        style: STYLE,
        script: SCRIPT,
    }
    .render()
}

/// The list of pages as a whole document.
pub fn render_index(view: &IndexView) -> Result<String, askama::Error> {
    IndexHtml { view, style: STYLE }.render()
}

#[derive(Template)]
#[template(path = "page.html")]
struct PageHtml<'a> {
    view: &'a PageView,
    active: Vec<&'a IncidentView>,
    past: Vec<DayView<'a>>,
    blank_incident: &'a IncidentView,
    blank_component: &'a ComponentView,
    style: &'static str,
    script: &'static str,
}

#[derive(Template)]
#[template(path = "index.html")]
struct IndexHtml<'a> {
    view: &'a IndexView,
    style: &'static str,
}

#[cfg(test)]
mod tests {
    use super::{
        super::{index::IndexRow, sample},
        *,
    };
    use crate::model::impact::Indicator;

    #[test]
    fn hostile_text_stays_text() {
        let mut view = sample::page();
        let hostile = r#"</title><script>alert(1)</script><img src=x onerror="x">' & "#;
        view.name = hostile.into();
        view.components[0].name = hostile.into();
        view.components[0].description = hostile.into();
        view.components[0].slug = hostile.into();
        view.incidents[0].title = hostile.into();
        view.incidents[0].updates[0].message = hostile.into();
        view.incidents[0].components[0].name = hostile.into();
        let html = render(&view).unwrap();
        assert_eq!(html.matches("<script").count(), 1, "only our own");
        assert!(!html.contains("<img") && !html.contains("onerror=\""));
        assert_eq!(html.matches("&#60;script&#62;alert(1)").count(), 10);
    }

    #[test]
    fn a_page_is_complete_without_script() {
        let html = render(&sample::page()).unwrap();
        for text in [
            "<html lang=\"en\">",
            "<h1>Lighthouse Cloud</h1>",
            "Partial System Outage",
            "4 of 5 components affected.",
            "Updated <time datetime=\"2026-03-14T12:03:05.042Z\">12:03:05 UTC</time>",
            "data-version=\"eu-1f3a9c20:41\"",
            "API answers slowly in Europe",
            "A network link between two sites is saturated.",
            "Under maintenance",
            "<time datetime=\"2026-03-13\">13 March</time>",
            "Resolved in 42 min",
            "8 – 12 Mar",
            "aria-live=\"polite\"",
        ] {
            assert!(html.contains(text), "{text}");
        }
        let outside = html.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !outside.contains("http://") && !outside.contains("https://"),
            "no external assets"
        );
    }

    #[test]
    fn a_page_without_components_and_incidents_says_so() {
        let mut view = sample::page();
        view.components.clear();
        view.incidents.clear();
        view.indicator = Indicator::None;
        let html = render(&view).unwrap();
        assert!(html.contains("No components have been added"));
        assert!(html.contains("28 Feb – 13 Mar"), "quiet days are drawn together");
        assert!(html.contains("aria-labelledby=\"active-title\" hidden"));
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut view = sample::page();
        assert!(!render(&view).unwrap().contains("class=\"left-out\""));
        view.active_left_out = 7;
        assert!(render(&view).unwrap().contains("7 older incidents are active as well."));
    }

    #[test]
    fn the_list_of_pages_links_relative_to_itself() {
        let page = sample::page();
        let row =
            IndexRow { slug: page.slug, name: "<Lighthouse>".into(), indicator: page.indicator };
        let view = IndexView { pages: vec![row], more: 3, rendered_at: page.rendered_at };
        let html = render_index(&view).unwrap();
        assert!(html.contains("href=\"demo/\"") && html.contains("&#60;Lighthouse&#62;"));
        assert!(html.contains("and 3 more pages"));
    }
}
