//! A list whose copies are free: a B-tree by position that shares unchanged parts. It does not know what it
//! holds.

use std::cmp::Ordering;
use std::sync::Arc;

/// A persistent list. A clone takes constant time; finding a position, inserting and removing take
/// logarithmic time.
#[derive(Clone, Debug)]
pub(crate) struct List<T> {
    root: Arc<Node<T>>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Node<T> {
    Leaf(Vec<T>),
    Branch(Vec<Child<T>>),
}

#[derive(Clone, Debug)]
struct Child<T> {
    len: usize,
    node: Arc<Node<T>>,
}

impl<T: Clone> List<T> {
    pub(crate) fn new() -> Self {
        Self {
            root: Arc::new(Node::Leaf(Vec::new())),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let mut node = &*self.root;
        let mut index = index;
        loop {
            match node {
                Node::Leaf(items) => return items.get(index),
                Node::Branch(children) => {
                    let child;
                    (child, index) = child_at(children, index)?;
                    node = &children.get(child)?.node;
                }
            }
        }
    }

    /// The position of an item, or where it would have to be, in a list that is sorted by `compare`.
    pub(crate) fn search(&self, compare: impl Fn(&T) -> Ordering) -> Result<usize, usize> {
        let mut node = &*self.root;
        let mut before = 0;
        loop {
            match node {
                Node::Leaf(items) => {
                    return match items.binary_search_by(&compare) {
                        Ok(index) => Ok(before + index),
                        Err(index) => Err(before + index),
                    };
                }
                Node::Branch(children) => {
                    // The last child that does not begin after it; the first, if all do.
                    let found = children.partition_point(|child| {
                        child.node.first().is_some_and(|first| compare(first).is_le())
                    });
                    let (earlier, rest) = children.split_at(found.saturating_sub(1));
                    before += earlier.iter().map(|child| child.len).sum::<usize>();
                    let Some(child) = rest.first() else {
                        return Err(before);
                    };
                    node = &child.node;
                }
            }
        }
    }

    /// Inserts an item at this index, which is at most the length.
    pub(crate) fn insert(&mut self, index: usize, item: T) {
        let index = index.min(self.len);
        self.len += 1;
        if let Some(right) = insert(Arc::make_mut(&mut self.root), index, item) {
            let left = std::mem::replace(&mut self.root, Arc::new(Node::Branch(Vec::new())));
            self.root = Arc::new(Node::Branch(vec![Child::new(left), right]));
        }
    }

    pub(crate) fn remove(&mut self, index: usize) -> Option<T> {
        if index >= self.len {
            return None;
        }
        let removed = remove(Arc::make_mut(&mut self.root), index)?;
        self.len -= 1;
        while let Node::Branch(children) = &*self.root {
            let [only] = children.as_slice() else { break };
            self.root = Arc::clone(&only.node);
        }
        Some(removed)
    }

    /// Replaces an item, and returns the old one.
    pub(crate) fn replace(&mut self, index: usize, item: T) -> Option<T> {
        let mut node = Arc::make_mut(&mut self.root);
        let mut index = index;
        loop {
            match node {
                Node::Leaf(items) => return Some(std::mem::replace(items.get_mut(index)?, item)),
                Node::Branch(children) => {
                    let child;
                    (child, index) = child_at(children, index)?;
                    node = Arc::make_mut(&mut children.get_mut(child)?.node);
                }
            }
        }
    }

    pub(crate) fn iter(&self) -> Iter<'_, T> {
        Iter {
            list: self,
            range: 0..self.len,
            leaf: [].iter(),
        }
    }
}

impl<T: Clone> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items = items.into_iter();
        let mut leaves = Vec::new();
        loop {
            let mut leaf = Vec::with_capacity(FILLED);
            leaf.extend(items.by_ref().take(FILLED));
            if leaf.is_empty() {
                break;
            }
            leaves.push(Child::new(Arc::new(Node::Leaf(leaf))));
        }
        let len = leaves.iter().map(|child| child.len).sum();
        while leaves.len() > 1 {
            leaves = leaves
                .chunks(FILLED)
                .map(|children| Child::new(Arc::new(Node::Branch(children.to_vec()))))
                .collect();
        }
        match leaves.pop() {
            Some(root) => Self { root: root.node, len },
            None => Self::new(),
        }
    }
}

impl<T> Node<T> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Branch(children) => children.iter().map(|child| child.len).sum(),
        }
    }

    /// How many direct items or children it has.
    fn width(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Branch(children) => children.len(),
        }
    }

    fn first(&self) -> Option<&T> {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(items) => return items.first(),
                Self::Branch(children) => node = &children.first()?.node,
            }
        }
    }
}

impl<T> Child<T> {
    fn new(node: Arc<Node<T>>) -> Self {
        Self {
            len: node.len(),
            node,
        }
    }
}

/// The child that holds this index, and the index in it.
fn child_at<T>(children: &[Child<T>], mut index: usize) -> Option<(usize, usize)> {
    for (position, child) in children.iter().enumerate() {
        if index < child.len {
            return Some((position, index));
        }
        index -= child.len;
    }
    None
}

/// Returns the right half of the node if it had to be split.
fn insert<T: Clone>(node: &mut Node<T>, index: usize, item: T) -> Option<Child<T>> {
    let half = match node {
        Node::Leaf(items) => {
            items.insert(index, item);
            if items.len() <= WIDEST {
                return None;
            }
            Node::Leaf(items.split_off(items.len() / 2))
        }
        Node::Branch(children) => {
            // A position after the last item belongs to the last child.
            let last = children.len().checked_sub(1)?;
            let end = children.last().map_or(0, |child| child.len);
            let (position, index) = child_at(children, index).unwrap_or((last, end));
            let child = children.get_mut(position)?;
            let split = insert(Arc::make_mut(&mut child.node), index, item);
            child.len = child.node.len();
            if let Some(right) = split {
                children.insert(position + 1, right);
            }
            if children.len() <= WIDEST {
                return None;
            }
            Node::Branch(children.split_off(children.len() / 2))
        }
    };
    Some(Child::new(Arc::new(half)))
}

fn remove<T: Clone>(node: &mut Node<T>, index: usize) -> Option<T> {
    match node {
        Node::Leaf(items) => (index < items.len()).then(|| items.remove(index)),
        Node::Branch(children) => {
            let (position, index) = child_at(children, index)?;
            let child = children.get_mut(position)?;
            let removed = remove(Arc::make_mut(&mut child.node), index);
            child.len -= usize::from(removed.is_some());
            if child.node.width() < NARROWEST {
                join(children, position);
            }
            removed
        }
    }
}

/// Joins a child that has become small with a neighbour, if both fit into one.
fn join<T: Clone>(children: &mut Vec<Child<T>>, position: usize) {
    let left = if position + 1 < children.len() {
        position
    } else {
        position.saturating_sub(1)
    };
    let width = |position: usize| children.get(position).map_or(WIDEST, |child| child.node.width());
    if left + 1 >= children.len() || width(left) + width(left + 1) > WIDEST {
        return;
    }
    let right = children.remove(left + 1);
    let Some(child) = children.get_mut(left) else {
        return;
    };
    match (Arc::make_mut(&mut child.node), &*right.node) {
        (Node::Leaf(items), Node::Leaf(more)) => items.extend_from_slice(more),
        (Node::Branch(children), Node::Branch(more)) => children.extend_from_slice(more),
        // All leaves are equally deep.
        (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => {}
    }
    child.len += right.len;
}

/// An iterator over the items of a list, in order.
#[derive(Clone, Debug)]
pub(crate) struct Iter<'a, T> {
    list: &'a List<T>,
    /// The indexes that are not yet in `leaf`.
    range: std::ops::Range<usize>,
    leaf: std::slice::Iter<'a, T>,
}

impl<'a, T: Clone> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        if let Some(item) = self.leaf.next() {
            return Some(item);
        }
        let leaf = self.list.leaf_from(self.range.start)?;
        self.range.start += leaf.len();
        self.leaf = leaf.iter();
        self.leaf.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.leaf.len() + self.range.len();
        (left, Some(left))
    }
}

impl<T: Clone> List<T> {
    /// The items of the leaf that contains this index, from the index on.
    fn leaf_from(&self, index: usize) -> Option<&[T]> {
        let mut node = &*self.root;
        let mut index = index;
        loop {
            match node {
                Node::Leaf(items) => return items.get(index..).filter(|items| !items.is_empty()),
                Node::Branch(children) => {
                    let child;
                    (child, index) = child_at(children, index)?;
                    node = &children.get(child)?.node;
                }
            }
        }
    }
}

/// How many items or children a node has at most, and how many when it is built in bulk.
const WIDEST: usize = 24;
const FILLED: usize = 18;
/// A node with fewer is joined with a neighbour, if there is room.
const NARROWEST: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize),
        Remove(usize),
        Replace(usize),
        Build(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => any::<usize>().prop_map(Step::Insert),
            5 => any::<usize>().prop_map(Step::Remove),
            1 => any::<usize>().prop_map(Step::Replace),
            1 => (0..5000usize).prop_map(Step::Build),
        ]
    }

    fn check(list: &List<u32>, expected: &[u32]) {
        assert_eq!(list.len(), expected.len());
        assert_eq!(list.iter().copied().collect::<Vec<_>>(), expected);
        for index in [
            0,
            expected.len() / 2,
            expected.len().saturating_sub(1),
            expected.len(),
        ] {
            assert_eq!(list.get(index), expected.get(index));
        }
    }

    proptest! {
        #[test]
        fn is_a_list_and_its_copies_stay_as_they_were(steps in prop::collection::vec(step(), 1..300)) {
            let mut list = List::new();
            let mut expected: Vec<u32> = Vec::new();
            let mut copies = Vec::new();
            for (number, step) in (0u32..).zip(steps) {
                match step {
                    Step::Insert(at) => {
                        let at = at % (expected.len() + 1);
                        list.insert(at, number);
                        expected.insert(at, number);
                    }
                    Step::Remove(at) if !expected.is_empty() => {
                        let at = at % expected.len();
                        prop_assert_eq!(list.remove(at), Some(expected.remove(at)));
                    }
                    Step::Replace(at) if !expected.is_empty() => {
                        let at = at % expected.len();
                        prop_assert_eq!(list.replace(at, number), Some(std::mem::replace(&mut expected[at], number)));
                    }
                    Step::Build(len) => {
                        expected = (0..u32::try_from(len).unwrap()).collect();
                        list = expected.iter().copied().collect();
                    }
                    Step::Remove(_) | Step::Replace(_) => prop_assert_eq!(list.remove(0), None),
                }
                if number % 16 == 0 {
                    copies.push((list.clone(), expected.clone()));
                }
            }
            copies.push((list, expected));
            for (list, expected) in &copies {
                check(list, expected);
            }
        }

        #[test]
        fn a_sorted_list_is_searched(mut numbers in prop::collection::btree_set(0..20_000u32, 0..3000), other: u32) {
            let mut list = List::new();
            for number in &numbers {
                let at = list.search(|item: &u32| item.cmp(number)).unwrap_err();
                list.insert(at, *number);
            }
            numbers.insert(other % 20_000);
            let sorted: Vec<_> = numbers.iter().copied().collect();
            let expected: Vec<_> = list.iter().copied().collect();
            for number in sorted {
                prop_assert_eq!(list.search(|item| item.cmp(&number)), expected.binary_search(&number));
            }
        }
    }

    #[test]
    fn it_shrinks_to_nothing_and_grows_again() {
        let mut list: List<u32> = (0..10_000).collect();
        for left in (0..10_000).rev() {
            list.remove((left * 7919) % (left + 1));
        }
        assert!(list.get(0).is_none() && list.iter().next().is_none());
        list.insert(0, 1);
        assert_eq!(list.get(0), Some(&1));
    }
}
