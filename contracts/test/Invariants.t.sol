// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AccessToken} from "../AccessToken.sol";
import {Token} from "../IAccessToken.sol";
import {Open} from "../policies/Open.sol";
import {Suite} from "./Suite.sol";

/// Does everything that can be done to a contract, in any order, and keeps its own books.
contract Crowd is Suite {
    AccessToken public token;
    address public constant DEVICE = address(0xd);
    address[3] public clients = [address(0x11), address(0x12), address(0x13)];

    mapping(address => uint256) public writes;
    mapping(address => uint256) public expected;
    mapping(address => uint256) public lastWrite;
    mapping(address => uint256) public barred;
    mapping(address => uint32) public lastSerial;

    constructor() {
        token = new AccessToken(address(this), DEVICE);
        token.setOffer(0, address(new Open()), DEVICE, 0x00000001, 1000, true);
    }

    function _client(uint256 seed) private view returns (address) {
        return clients[seed % 3];
    }

    function _wrote(address client, uint256 expiresAt) private {
        writes[client]++;
        expected[client] = expiresAt;
        lastWrite[client] = block.number;
    }

    function grant(uint256 seed, uint32 ttl, bytes4 claims) external {
        address client = _client(seed);
        try token.addToken(client, DEVICE, ttl, claims) {
            yes(ttl != 0 && claims != 0 && barred[client] <= block.timestamp, "grants only what makes sense");
            _wrote(client, block.timestamp + ttl);
        } catch {}
    }

    function request(uint256 seed, uint16 ttl) external {
        address client = _client(seed);
        vm.prank(client);
        try token.requestToken(0, ttl, "") {
            yes(ttl != 0 && ttl <= 1000 && barred[client] <= block.timestamp, "an offer's limits hold");
            _wrote(client, block.timestamp + ttl);
        } catch {}
    }

    function remove(uint256 seed, bool byClient) external {
        address client = _client(seed);
        if (byClient) vm.prank(client);
        token.deleteToken(client, DEVICE);
        if (expected[client] != 0) _wrote(client, 0);
    }

    function bar(uint256 seed, uint32 duration) external {
        address client = _client(seed);
        barred[client] = block.timestamp + duration;
        token.barClient(client, DEVICE, uint64(block.timestamp + duration));
        if (duration > 0 && expected[client] != 0) _wrote(client, 0);
    }

    function meddle(uint256 seed, address stranger, bytes4 claims) external {
        if (stranger == address(this) || stranger == _client(seed)) return;
        vm.prank(stranger);
        try token.addToken(_client(seed), DEVICE, 10, claims) {
            yes(false, "a stranger granted");
        } catch {}
        vm.prank(stranger);
        try token.deleteToken(_client(seed), DEVICE) {
            yes(false, "a stranger revoked");
        } catch {}
    }

    function pass(uint8 blocks, uint16 time) external {
        vm.roll(block.number + blocks);
        vm.warp(block.timestamp + time);
    }

    function noteSerials() external {
        for (uint256 i = 0; i < 3; ++i) {
            lastSerial[clients[i]] = token.tokenOf(clients[i], DEVICE).serial;
        }
    }
}

contract InvariantsTest is Suite {
    Crowd internal crowd;

    function setUp() public {
        crowd = new Crowd();
    }

    function targetContracts() public view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(crowd);
    }

    /// The serial counts the writes, grantBlock names the last, and what stands is what was last written.
    function invariant_slots_tell_their_history() public view {
        AccessToken token = crowd.token();
        for (uint256 i = 0; i < 3; ++i) {
            address client = crowd.clients(i);
            Token memory t = token.tokenOf(client, crowd.DEVICE());
            eq(t.serial, crowd.writes(client));
            eq(t.grantBlock, crowd.lastWrite(client));
            eq(t.expiresAt, crowd.expected(client));
            yes(t.serial >= crowd.lastSerial(client), "serials only grow");
            yes((t.expiresAt == 0) == (t.claims == 0), "no claims without a token");
        }
    }

    function invariant_nothing_is_kept() public view {
        eq(address(crowd.token()).balance, 0);
    }
}
