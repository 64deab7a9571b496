//! The tree of RFC 6962, section 2.1, which the audit log is: leaves and inner nodes are hashed with different
//! prefixes, so that neither can stand for the other.

use sha2::{Digest as _, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// RFC 6962: SHA-256(0x00 || leaf).
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(leaf)
        .finalize()
        .into()
}

/// RFC 6962: SHA-256(0x01 || left || right).
fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut node = [1; 65];
    node[1..33].copy_from_slice(left);
    node[33..].copy_from_slice(right);
    Sha256::digest(node).into()
}

/// A tree that grows: of its leaves only the hashes of the perfect subtrees are kept, the largest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tree {
    size: u64,
    subtrees: Vec<Hash>,
}

impl Tree {
    /// A tree of `size` leaves, of which only the subtrees are known; none if their number does not fit.
    pub fn of(size: u64, subtrees: Vec<Hash>) -> Option<Self> {
        let fits = size.count_ones() as usize == subtrees.len();
        fits.then_some(Self { size, subtrees })
    }

    /// How many leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of its perfect subtrees, the largest first.
    pub fn subtrees(&self) -> &[Hash] {
        &self.subtrees
    }

    /// Adds a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        self.add(0, leaf);
    }

    /// The tree that it becomes with the leaves that follow on its own.
    ///
    /// # Errors
    /// [`ExtensionFault`]: they do not follow, or are no subtrees of such a tree.
    pub fn extended(&self, extension: &Extension) -> Result<Self, ExtensionFault> {
        if extension.begin != self.size {
            return Err(ExtensionFault::DoesNotFollow);
        }
        let mut tree = self.clone();
        for (level, hash) in &extension.subtrees {
            let leaves = 1_u64.checked_shl(u32::from(*level));
            let fits = leaves.filter(|leaves| {
                tree.size.is_multiple_of(*leaves) && tree.size.checked_add(*leaves).is_some()
            });
            if fits.is_none() {
                return Err(ExtensionFault::NoSubtree);
            }
            tree.add(*level, *hash);
        }
        Ok(tree)
    }

    /// Adds a perfect subtree of 2^level leaves at the end, whose place is a multiple of its size.
    fn add(&mut self, level: u8, subtree: Hash) {
        let mut hash = subtree;
        // Each subtree that is as large as what was made so far stands left of it.
        for _ in 0..(self.size >> level).trailing_ones() {
            let Some(left) = self.subtrees.pop() else {
                break;
            };
            hash = node_hash(&left, &hash);
        }
        self.subtrees.push(hash);
        self.size += 1 << level;
    }

    /// RFC 6962's Merkle Tree Hash of all leaves.
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        match subtrees.next() {
            None => Sha256::digest([]).into(),
            Some(smallest) => subtrees.fold(*smallest, |right, left| node_hash(left, &right)),
        }
    }
}

/// Leaves that follow on a tree, as perfect subtrees, each as large as its place allows. With the tree before it, it
/// proves that a larger tree only adds to a smaller one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Extension {
    begin: u64,
    end: u64,
    /// 2^level leaves, and their hash.
    subtrees: Vec<(u8, Hash)>,
}

/// Why leaves cannot follow on a tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ExtensionFault {
    /// They begin elsewhere than the tree ends.
    #[error("the leaves do not begin where the tree ends")]
    DoesNotFollow,
    /// A subtree has no place there.
    #[error("a subtree does not fit its place")]
    NoSubtree,
}

impl Extension {
    /// No leaves yet, after `begin` of them.
    pub fn after(begin: u64) -> Self {
        Self {
            begin,
            end: begin,
            subtrees: Vec::new(),
        }
    }

    /// What somebody else says that it is; [`Tree::extended`] judges it.
    pub fn from_parts(begin: u64, subtrees: Vec<(u8, Hash)>) -> Self {
        Self {
            begin,
            end: begin,
            subtrees,
        }
    }

    /// How many leaves come before.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// How many leaves there are with these.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The subtrees: each with its level, 2^level leaves, and its hash.
    pub fn subtrees(&self) -> &[(u8, Hash)] {
        &self.subtrees
    }

    /// Adds a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        self.add(0, leaf);
    }

    /// Adds leaves that begin where these end.
    pub fn append(&mut self, others: &Self) {
        for (level, hash) in &others.subtrees {
            self.add(*level, *hash);
        }
    }

    fn add(&mut self, level: u8, subtree: Hash) {
        self.subtrees.push((level, subtree));
        self.end += 1 << level;
        while let [.., (left, left_hash), (right, right_hash)] = self.subtrees[..]
            && left == right
            && self.end.is_multiple_of(2 << left)
        {
            let both = (left + 1, node_hash(&left_hash, &right_hash));
            self.subtrees.truncate(self.subtrees.len() - 2);
            self.subtrees.push(both);
        }
    }
}

/// Why a leaf is in a tree: the hashes beside its way to the root, the leaf's own neighbour first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InclusionProof {
    /// The leaf's index, from 0.
    pub index: u64,
    /// How many leaves the tree has.
    pub size: u64,
    /// RFC 6962's audit path.
    pub path: Vec<Hash>,
}

impl InclusionProof {
    /// The root that follows from the leaf's hash and the path, as RFC 9162 section 2.1.3.2 has it; none if the path
    /// has not the length of its place.
    pub fn root(&self, leaf: Hash) -> Option<Hash> {
        if self.index >= self.size {
            return None;
        }
        let (mut index, mut last, mut hash) = (self.index, self.size - 1, leaf);
        for beside in &self.path {
            if last == 0 {
                return None;
            }
            if index & 1 == 1 || index == last {
                hash = node_hash(beside, &hash);
                // The last node of a level that has no neighbour rises as it is.
                while index & 1 == 0 && index != 0 {
                    index >>= 1;
                    last >>= 1;
                }
            } else {
                hash = node_hash(&hash, beside);
            }
            index >>= 1;
            last >>= 1;
        }
        (last == 0).then_some(hash)
    }
}

/// A proof that is collected while the leaves pass by once, in order: memory for the path alone.
#[derive(Debug)]
pub struct Prover {
    index: u64,
    size: u64,
    path: Vec<(u64, Tree)>,
    next: u64,
}

impl Prover {
    /// None if the tree has no such leaf.
    pub fn new(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let (mut path, mut from, mut to) = (Vec::new(), 0, size);
        while to - from > 1 {
            // RFC 6962: the largest power of two below the number of leaves is left.
            let half = 1 << (63 - (to - from - 1).leading_zeros());
            let middle = from + half;
            if index < middle {
                path.push((middle, to));
                to = middle;
            } else {
                path.push((from, middle));
                from = middle;
            }
        }
        path.reverse();
        let path = path
            .into_iter()
            .map(|(from, to)| {
                (
                    from,
                    Tree {
                        size: 0,
                        subtrees: Vec::with_capacity((to - from).count_ones() as usize),
                    },
                )
            })
            .collect();
        Some(Self {
            index,
            size,
            path,
            next: 0,
        })
    }

    /// The next leaf.
    pub fn push(&mut self, leaf: Hash) {
        let next = self.next;
        self.next += 1;
        if next == self.index || next >= self.size {
            return;
        }
        // The sibling that the leaf is in begins last before it, of those that it could be in.
        let own = self
            .path
            .iter_mut()
            .filter(|(from, _)| *from <= next)
            .max_by_key(|(from, _)| *from);
        if let Some((_, tree)) = own {
            tree.push(leaf);
        }
    }

    /// The proof; none if leaves are missing.
    pub fn proof(self) -> Option<InclusionProof> {
        (self.next >= self.size).then(|| InclusionProof {
            index: self.index,
            size: self.size,
            path: self.path.iter().map(|(_, tree)| tree.root()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::encode_hex;

    /// RFC 6962, section 2.1, as it is written: recursive.
    fn root_of(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            all => {
                let half = all.len().next_power_of_two() / 2;
                node_hash(&root_of(&all[..half]), &root_of(&all[half..]))
            }
        }
    }

    #[test]
    fn roots_are_those_of_certificate_transparency_s_test_vectors() {
        let leaves: [&[u8]; 4] = [b"", b"\0", b"\x10", b"\x20\x21"];
        let mut tree = Tree::default();
        let mut roots = vec![encode_hex(&tree.root())];
        for leaf in leaves {
            tree.push(leaf_hash(leaf));
            roots.push(encode_hex(&tree.root()));
        }
        assert_eq!(
            roots,
            [
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
    }

    #[test]
    fn a_growing_tree_has_the_recursive_root_and_each_leaf_a_proof() {
        let leaves: Vec<Hash> = (0..70_u8).map(|leaf| leaf_hash(&[leaf])).collect();
        let mut tree = Tree::default();
        for size in 0..=leaves.len() {
            assert_eq!(tree.root(), root_of(&leaves[..size]), "{size}");
            let of = Tree::of(tree.size(), tree.subtrees().to_vec()).unwrap();
            assert_eq!(of, tree);
            for index in 0..size {
                let mut prover = Prover::new(index as u64, size as u64).unwrap();
                for leaf in &leaves[..size] {
                    prover.push(*leaf);
                }
                let proof = prover.proof().unwrap();
                assert_eq!(
                    proof.root(leaves[index]),
                    Some(tree.root()),
                    "{index} of {size}"
                );
                let other = leaf_hash(b"another");
                assert_ne!(proof.root(other), Some(tree.root()));
                let mut longer = proof.clone();
                longer.path.push(other);
                assert_ne!(longer.root(leaves[index]), Some(tree.root()));
            }
            assert!(Prover::new(size as u64, size as u64).is_none());
            if let Some(leaf) = leaves.get(size) {
                tree.push(*leaf);
            }
        }
        assert!(Tree::of(3, vec![[0; 32]]).is_none());
    }

    #[test]
    fn a_tree_and_what_follows_on_it_are_the_larger_tree_and_nothing_else_follows() {
        let leaves: Vec<Hash> = (0..70_u8).map(|leaf| leaf_hash(&[leaf])).collect();
        for begin in 0..leaves.len() {
            let mut before = Tree::default();
            leaves[..begin].iter().for_each(|leaf| before.push(*leaf));
            let (mut grown, mut extension) = (before.clone(), Extension::after(begin as u64));
            for leaf in &leaves[begin..] {
                assert_eq!(before.extended(&extension), Ok(grown.clone()));
                grown.push(*leaf);
                extension.push(*leaf);
                assert!(extension.subtrees().len() <= 14);
            }
            let mut halves = Extension::after(begin as u64);
            let mut second = Extension::after((begin as u64 + 70) / 2);
            let middle = usize::try_from(second.begin()).unwrap();
            leaves[begin..middle]
                .iter()
                .for_each(|leaf| halves.push(*leaf));
            leaves[middle..].iter().for_each(|leaf| second.push(*leaf));
            halves.append(&second);
            assert_eq!(halves, extension);
            let other = Extension::after(begin as u64 + 1);
            assert_eq!(before.extended(&other), Err(ExtensionFault::DoesNotFollow));
        }
        let mut three = Tree::default();
        leaves[..3].iter().for_each(|leaf| three.push(*leaf));
        for level in [1, 2, 63, 64, 255] {
            let askew = Extension::from_parts(3, vec![(level, leaves[0])]);
            assert_eq!(three.extended(&askew), Err(ExtensionFault::NoSubtree));
        }
        let endless = vec![(63, leaves[0]), (63, leaves[1])];
        let endless = Extension::from_parts(0, endless);
        assert_eq!(
            Tree::default().extended(&endless),
            Err(ExtensionFault::NoSubtree)
        );
    }
}
