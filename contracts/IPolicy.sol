// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// What a client asks a policy to judge. `accessToken` and `offer` name the offer; `caller` paid for the transaction.
struct Ask {
    address client;
    address resource;
    address accessToken;
    address caller;
    uint32 offer;
    uint64 ttl;
    bytes4 claims;
}

/// The condition of an offer (IoTChain, section II-B: the smart contract "checks the conditions").
///
/// A policy either returns `IPolicy.check.selector` or refuses by reverting with an error of its own. It is called
/// with at most 200 000 gas, and no more than 32 octets of what it returns are looked at.
interface IPolicy {
    /// A policy was sent wei that it does not ask for.
    error UnexpectedValue();

    /// Judges one request, and records what it has to record.
    /// @param ask what is requested
    /// @param proof what this kind of policy wants to see, ABI-encoded
    /// @return the selector of this function
    function check(Ask calldata ask, bytes calldata proof) external payable returns (bytes4);

    /// What the request costs in wei, to be sent along with it.
    function price(Ask calldata ask) external view returns (uint256);

    /// The kind of policy, for people and tools: "open", "puzzle", ...
    function kind() external pure returns (string memory);
}
