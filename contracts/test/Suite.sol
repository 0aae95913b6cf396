// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// The cheatcodes of forge that these tests use.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function warp(uint256) external;
    function roll(uint256) external;
    function chainId(uint256) external;
    function prank(address) external;
    function startPrank(address) external;
    function stopPrank() external;
    function deal(address, uint256) external;
    function etch(address, bytes calldata) external;
    function load(address, bytes32) external view returns (bytes32);
    function store(address, bytes32, bytes32) external;
    function sign(uint256, bytes32) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function addr(uint256) external pure returns (address);
    function assume(bool) external pure;
    function expectRevert() external;
    function expectRevert(bytes4) external;
    function expectRevert(bytes calldata) external;
    function expectEmit(bool, bool, bool, bool, address) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function setBlockhash(uint256, bytes32) external;
    function cool(address) external;
    function toString(uint256) external pure returns (string memory);
}

/// What every test contract starts from. A failed expectation reverts, which forge counts as a failure.
abstract contract Suite {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    error Unequal(uint256 is_, uint256 should);
    error UnequalWords(bytes32 is_, bytes32 should);
    error UnequalAccounts(address is_, address should);
    error Untrue(string what);
    error Above(uint256 is_, uint256 most, string what);

    function eq(uint256 is_, uint256 should) internal pure {
        if (is_ != should) revert Unequal(is_, should);
    }

    function eq(bytes32 is_, bytes32 should) internal pure {
        if (is_ != should) revert UnequalWords(is_, should);
    }

    function eq(address is_, address should) internal pure {
        if (is_ != should) revert UnequalAccounts(is_, should);
    }

    function yes(bool condition, string memory what) internal pure {
        if (!condition) revert Untrue(what);
    }

    function atMost(uint256 is_, uint256 most, string memory what) internal pure {
        if (is_ > most) revert Above(is_, most, what);
    }

    /// 65 octets r, s, v.
    function signed(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// The other signature of the same message: upper half of s, other v.
    function malleated(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        uint256 n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        return abi.encodePacked(r, bytes32(n - uint256(s)), v == 27 ? uint8(28) : uint8(27));
    }

    /// The EIP-712 digest under IoTChain's domain, written out independently of Signatures.sol.
    function digestOf(address verifier, bytes32 structHash) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256(bytes("IoTChain")),
                keccak256(bytes("1")),
                block.chainid,
                verifier
            )
        );
        return keccak256(bytes.concat(bytes2(0x1901), domain, structHash));
    }
}
