use super::*;
use std::collections::HashSet;

#[test]
fn every_setting_has_its_own_flag_and_variable() {
    assert_eq!(SETTINGS.iter().map(Setting::flag).collect::<HashSet<_>>().len(), SETTINGS.len());
    assert_eq!(SETTINGS.iter().map(Setting::environment).collect::<HashSet<_>>().len(), SETTINGS.len());
}

#[test]
fn settings_stand_in_the_order_of_the_sections() {
    let mut order: Vec<&str> = SETTINGS.iter().map(|setting| setting.section).collect();
    order.dedup();
    assert_eq!(order, SECTIONS.iter().map(|section| section.name).collect::<Vec<_>>());
}
