// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {AccessToken} from "../AccessToken.sol";
import {Ask, IPolicy} from "../IPolicy.sol";

contract Coin is ERC20 {
    constructor() ERC20("Coin", "C") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// A token of the old kind that returns nothing, and one that lies by returning false.
contract FalseCoin {
    function transferFrom(address, address, uint256) external pure returns (bool) {
        return false;
    }
}

contract Lock {
    mapping(address => uint256) public balanceOf;

    function set(address account, uint256 keys) external {
        balanceOf[account] = keys;
    }
}

/// A contract account that agrees to signatures of one key, or misbehaves.
contract SmartAccount {
    enum Mood {
        Honest,
        Refusing,
        Reverting,
        Endless,
        Bomb,
        Short
    }

    address public signer;
    Mood public mood;

    constructor(address signer_) {
        signer = signer_;
    }

    function setMood(Mood mood_) external {
        mood = mood_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        if (mood == Mood.Reverting) revert("no");
        if (mood == Mood.Endless) while (true) {}
        if (mood == Mood.Bomb) {
            assembly {
                return(0, 1000000)
            }
        }
        if (mood == Mood.Short) {
            assembly {
                mstore(0, shl(224, 0x1626ba7e))
                return(0, 4)
            }
        }
        if (mood == Mood.Refusing) return 0xffffffff;
        (bytes32 r, bytes32 s) = abi.decode(signature[:64], (bytes32, bytes32));
        address recovered = ecrecover(digest, uint8(signature[64]), r, s);
        return recovered == signer && recovered != address(0) ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }

    receive() external payable {}
}

/// Policies that try to harm whoever asks them.
contract HostilePolicy is IPolicy {
    enum Mood {
        Agree,
        WrongMagic,
        DirtyMagic,
        Silent,
        Short,
        Endless,
        Bomb,
        BombRevert,
        Reenter,
        ReenterFor
    }

    Mood public mood;
    AccessToken public target;

    function set(Mood mood_, AccessToken target_) external {
        mood = mood_;
        target = target_;
    }

    function check(Ask calldata ask, bytes calldata) external payable returns (bytes4) {
        if (mood == Mood.WrongMagic) return 0x12345678;
        if (mood == Mood.Endless) while (true) {}
        if (mood == Mood.Reenter) target.requestToken(ask.offer, ask.ttl, "");
        if (mood == Mood.ReenterFor) target.requestTokenFor(ask.client, ask.offer, ask.ttl, "", type(uint256).max, "");
        bytes4 magic = IPolicy.check.selector;
        if (mood == Mood.Silent) {
            assembly {
                return(0, 0)
            }
        }
        if (mood == Mood.Short) {
            assembly {
                mstore(0, magic)
                return(0, 4)
            }
        }
        if (mood == Mood.DirtyMagic) {
            assembly {
                mstore(0, or(magic, 1))
                return(0, 32)
            }
        }
        if (mood == Mood.Bomb) {
            assembly {
                mstore(0, magic)
                return(0, 100000)
            }
        }
        if (mood == Mood.BombRevert) {
            assembly {
                revert(0, 100000)
            }
        }
        return magic;
    }

    function price(Ask calldata) external pure returns (uint256) {
        return 0;
    }

    function kind() external pure returns (string memory) {
        return "hostile";
    }
}

/// A consumer of a policy that asks whatever it is told to.
contract Asker {
    function ask(IPolicy policy, Ask calldata what, bytes calldata proof) external payable returns (bytes4) {
        return policy.check{value: msg.value}(what, proof);
    }
}

/// A payee that cannot be paid.
contract NoPayee {
    receive() external payable {
        revert("no");
    }
}
