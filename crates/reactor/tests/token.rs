//! The registry against a hash map.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use reactor::token::{Registry, Token};

#[derive(Clone, Debug)]
enum Step {
    Insert(u16),
    Remove(prop::sample::Index),
    Change(prop::sample::Index, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<u16>().prop_map(Step::Insert),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => (any::<prop::sample::Index>(), any::<u16>()).prop_map(|(i, v)| Step::Change(i, v)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every token that was ever given out is asked for at every step, the stale ones too.
    #[test]
    fn the_registry_does_what_a_map_does(steps in vec(step(), 0..120)) {
        let mut registry = Registry::new();
        let mut map: HashMap<Token, u16> = HashMap::new();
        let mut given_out: Vec<Token> = Vec::new();
        for step in steps {
            match step {
                Step::Insert(value) => {
                    let token = registry.insert(value);
                    prop_assert!(!given_out.contains(&token));
                    given_out.push(token);
                    map.insert(token, value);
                }
                Step::Remove(index) if !given_out.is_empty() => {
                    let token = index.get(&given_out);
                    prop_assert_eq!(registry.remove(*token), map.remove(token));
                }
                Step::Change(index, value) if !given_out.is_empty() => {
                    let token = index.get(&given_out);
                    if let Some(entry) = map.get_mut(token) {
                        *entry = value;
                    }
                    if let Some(entry) = registry.get_mut(*token) {
                        *entry = value;
                    }
                }
                Step::Remove(_) | Step::Change(..) => {}
            }
            prop_assert_eq!(registry.len(), map.len());
            prop_assert_eq!(registry.is_empty(), map.is_empty());
            for token in &given_out {
                prop_assert_eq!(registry.get(*token), map.get(token));
                prop_assert_eq!(registry.contains(*token), map.contains_key(token));
            }
            let listed: HashMap<Token, u16> = registry.iter().map(|(t, v)| (t, *v)).collect();
            prop_assert_eq!(&listed, &map);
        }
    }

    #[test]
    fn tokens_survive_the_kernel_s_64_bits(index in any::<u32>(), generation in any::<u32>()) {
        let token = Token { index, generation };
        prop_assert_eq!(Token::from_u64(token.to_u64()), token);
    }
}
